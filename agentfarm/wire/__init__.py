"""Generated from proto/agentfarm/v1 by `make wire`; never edited by hand."""

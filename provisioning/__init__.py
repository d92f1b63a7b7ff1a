"""From an inventory to machines. So far the inventory is read; the steps on machines come later."""

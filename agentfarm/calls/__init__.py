"""What an attempt may ask of the farm: for each subject the names of its methods and the form of what they carry.

The SDK and the controller both use these modules. The standard library is enough for them, because the SDK also runs in
agents' own environments. So a header is JSON and not a protobuf message.
"""

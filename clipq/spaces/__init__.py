"""Where vectors lie: what decides it, as components that can be compared, and the short id of a space.

Plain values and hashes, without torch; numpy where tensors are hashed. No model is run here, no file is opened.
"""

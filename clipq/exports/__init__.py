"""To the runtimes that users have: a model as ONNX, OpenVINO, TensorRT, MNN or compressed-tensors files.

Nothing is handed over untried: every export is run in its runtime beside the model (`gate`), and removed if it differs.
"""

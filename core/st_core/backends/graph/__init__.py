"""Run stacks of modules as graphs on ONNX Runtime or OpenVINO, and export them."""

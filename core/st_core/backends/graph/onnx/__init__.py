"""ONNX Runtime: sessions, int8 and 16-bit conversion."""

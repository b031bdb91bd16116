"""OpenVINO: sessions and int8 conversion."""

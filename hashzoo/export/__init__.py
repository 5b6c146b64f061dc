"""Trained methods and codes in the formats of other programs: ONNX, faiss, Parquet, PostgreSQL, LanceDB."""

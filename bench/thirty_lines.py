"""What people write without this package: FastAPI around sentence-transformers, for comparison.

python -m bench.thirty_lines FOLDER PORT
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model: SentenceTransformer


class Request(BaseModel):
    """One text or several."""

    inputs: str | list[str]


@app.post("/embed")
def embed(request: Request) -> list[list[float]]:
    """Encode the texts of one request."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    return model.encode(texts, normalize_embeddings=True).tolist()


@app.get("/ready")
def ready() -> dict[str, bool]:
    """Say that the model is loaded."""
    return {"ready": True}


if __name__ == "__main__":
    model = SentenceTransformer(sys.argv[1], device="cpu")
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")

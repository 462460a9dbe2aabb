"""The model behind FastAPI and uvicorn: a call of the model a request."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.common import load

app = FastAPI()
_predictor = load()


class Body(BaseModel):
    """A request."""

    text: str


@app.post("/predict")
async def predict(body: Body) -> dict[str, Any]:
    """Answer in the event loop: handing so short a call to a thread would cost more."""
    return _predictor.predict([body.text])[0].as_dict()

"""The whole interface against a real TorchServe: paths, forms, gzip, batches of all protocols."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from serving.client import Client, read_key
from serving.server import Server
from tests.conftest import MULTI, SERVED

NAME = SERVED[0]
TENSOR = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a great film", "boring"]}


def send(live: Server, path: str, body: object, **headers: str) -> requests.Response:
    """Post JSON, or bytes as they are."""
    named = {"Authorization": f"Bearer {read_key(live.key_file, 'inference')}"}
    named |= {"Content-Type": "application/json"} | headers
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    address = f"http://127.0.0.1:{live.ports['inference']}{path}"
    return requests.post(address, data=content, headers=named, timeout=20)


def test_the_paths_of_kserve_lead_to_the_same_answers(live: Server) -> None:
    texts = ["a great film", "boring"]
    known = send(live, f"/predictions/{NAME}", {"instances": texts}).json()
    assert send(live, f"/v1/models/{NAME}:predict", {"instances": texts}).json() == known
    for path in (f"/v2/models/{NAME}/infer", f"/predictions/{NAME}/1.0", f"/predictions/{NAME}"):
        answer = send(live, path, {"id": "7", "inputs": [TENSOR]}).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == (NAME, "1.0", "7")
        label, scores = answer["outputs"]
        assert label["data"] == [each["label"] for each in known["predictions"]]
        names = scores["parameters"]["labels"]
        rows = [[each["scores"][name] for name in names] for each in known["predictions"]]
        assert scores["data"] == pytest.approx([p for row in rows for p in row], abs=1e-6)


def test_what_torchserve_does_not_route_is_404(live: Server) -> None:
    """As README says; a change of TorchServe must be seen."""
    key = {"Authorization": f"Bearer {read_key(live.key_file, 'inference')}"}
    base = f"http://127.0.0.1:{live.ports['inference']}/v2"
    for path in ("", "/health/ready", f"/models/{NAME}", f"/models/{NAME}/ready"):
        assert requests.get(base + path, headers=key, timeout=20).status_code == 404


def test_a_form_and_a_multipart_body_take_the_options(live: Server) -> None:
    key = {"Authorization": f"Bearer {read_key(live.key_file, 'inference')}"}
    whole = send(live, f"/predictions/{NAME}", b"a great film", **{"Content-Type": "text/plain"})
    short = whole.json() | {"label": None}
    short["scores"] = {whole.json()["label"]: whole.json()["score"]}
    options = {"top_k": "1", "threshold": "1"}
    form = {"text": "a great film"} | options
    parts = {name: (None, value) for name, value in ({"data": "a great film"} | options).items()}
    url = live.url(NAME)
    assert requests.post(url, data=form, headers=key, timeout=20).json() == short
    assert requests.post(url, files=parts, headers=key, timeout=20).json() == short
    # TorchServe drops the query of a request with a body: nothing to read there
    query = requests.post(
        url + "?top_k=1",
        data=b"a great film",
        headers=key | {"Content-Type": "text/plain"},
        timeout=20,
    )
    assert query.json() == whole.json()


def test_gzip_bodies_and_bombs_beside_good_ones(live: Server) -> None:
    packed = {"Content-Encoding": "gzip"}
    whole = gzip.compress(b'{"text": "a great film"}')
    bomb = gzip.compress(b" " * 50_000_000, 9)
    cases = [(whole, 200), (whole[:-4], 400), (bomb, 413), (b"{}", 400)] * 8
    path = f"/predictions/{NAME}"
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda case: send(live, path, case[0], **packed), cases)]
    assert [answer.status_code for answer in answers] == [code for _, code in cases]
    assert all(answer.json()["code"] == answer.status_code for answer in answers[1:4])
    assert answers[0].json() == send(live, path, {"text": "a great film"}).json()
    assert live.ready(NAME) == 1


def test_all_bodies_at_once_get_their_own_answers(live: Server) -> None:
    bodies: list[object] = [{"text": f"great {i}", "top_k": 1} for i in range(20)]
    bodies += [{"inputs": [TENSOR], "id": str(i)} for i in range(20)]
    bodies += [{"instances": ["great", ""], "threshold": 0.5}] * 20
    bodies += [{"text": "great", "top_k": 0}] * 20
    order = [*range(0, 80, 7), *(i for i in range(80) if i % 7)]
    with ThreadPoolExecutor(16) as pool:
        found = dict(pool.map(lambda i: (i, send(live, f"/predictions/{NAME}", bodies[i])), order))
    for i, answer in found.items():
        value = answer.json()
        if i < 20:
            assert len(value["scores"]) == 1
        elif i < 40:
            assert value["id"] == str(i - 20)
        elif i < 60:
            assert [each.get("code") for each in value["predictions"]] == [None, 400]
        else:
            assert value["message"] == "top_k must be a whole number of 1 or more"


def test_a_description_comes_through_the_management_port(live: Server) -> None:
    key = {"Authorization": f"Bearer {read_key(live.key_file, 'management')}"}
    address = f"http://127.0.0.1:{live.ports['management']}/models"
    for name, many in ((NAME, False), (MULTI, True)):
        answer = requests.get(
            f"{address}/{name}", params={"customized": "true"}, headers=key, timeout=20
        )
        described = answer.json()[0]["customizedMetadata"]
        assert (described["name"], described["version"]) == (name, "1.0")
        assert described["multi_label"] is many
        assert described["measured"]["sentences"] > 0
        assert described["limits"]["instances"] == 128


def test_the_client_streams_from_a_server(live: Server) -> None:
    texts = ["great", "boring", "", "film " * 100] * 50
    with Client(live.url(NAME), live.key_file, top_k=1) as client:
        answers = list(client.stream(texts, batch_size=7))
    assert len(answers) == len(texts)
    for i in range(0, len(answers), 4):
        great, boring, empty, long = answers[i : i + 4]
        assert (great["label"], boring["label"]) == ("good", "bad")
        assert empty == {"code": 400, "message": "the text is empty"}
        assert long["truncated"] is True

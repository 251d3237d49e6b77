// What the A/B player draws: waveform, mel spectrogram and time axis, on plain canvases.

const WAVE_PX = 52; // heights inside a track's canvas
const GAP_PX = 4;
const MEL_PX = 84;
const AXIS_PX = 22;
const MEL_RANGE_DB = 70; // shown below the loudest band of A and B together
const TICK_SPACING_PX = 72;
const TICK_STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];

// Low to high level, in the direction that the page's own paper and ink run.
const RAMP_ON_LIGHT = ["#fbfbfe", "#dfe1f1", "#b4b3da", "#8a79bb", "#6b3f98", "#48136b", "#1d0533"];
const RAMP_ON_DARK = ["#0d0b14", "#241446", "#54177a", "#932b80", "#d3436e", "#f8845f", "#fcf3bf"];

// Sizes the canvas for the screen's pixels and clears it. Returns its context, scaled so that 1 unit is 1 CSS pixel.
function prepareCanvas(canvas, heightPx) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.round(heightPx * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, heightPx);
  return { pen, width };
}

function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function isDark(cssColor) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.fillStyle = cssColor;
  pen.fillRect(0, 0, 1, 1);
  const [red, green, blue] = pen.getImageData(0, 0, 1, 1).data;
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
}

// share in [0, 1] -> [r, g, b] on a ramp of colours.
function colorOnRamp(ramp, share) {
  const place = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const below = Math.min(Math.floor(place), ramp.length - 2);
  const [low, high] = [rgbOf(ramp[below]), rgbOf(ramp[below + 1])];
  return low.map((value, channel) => value + (high[channel] - value) * (place - below));
}

// ---- waveform ----------------------------------------------------------------------------------------------------

// Lowest, highest and RMS value of the samples under each of `columns` pixel columns that span `frames` frames.
function waveColumns(samples, frames, columns) {
  const used = Math.ceil((columns * samples.length) / frames);
  const [low, high, rms] = [0, 1, 2].map(() => new Float32Array(used));
  for (let x = 0; x < used; x++) {
    const from = Math.floor((x * frames) / columns);
    const to = Math.min(samples.length, Math.max(from + 1, Math.floor(((x + 1) * frames) / columns)));
    let squares = 0;
    for (let i = from; i < to; i++) {
      const value = samples[i];
      if (value < low[x]) low[x] = value;
      if (value > high[x]) high[x] = value;
      squares += value * value;
    }
    rms[x] = Math.sqrt(squares / Math.max(1, to - from));
  }
  return { low, high, rms };
}

function peakOf(samples) {
  return samples.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
}

// `scale` turns a sample into a share of half the height: the same for A and B, so that their sizes compare.
function drawWave(pen, { samples, frames, width, scale, color }) {
  const columns = Math.max(1, Math.round(width * (window.devicePixelRatio || 1)));
  const { low, high, rms } = waveColumns(samples, frames, columns);
  const step = width / columns;
  const middle = WAVE_PX / 2;
  const half = middle - 1;
  const bar = (x, bottom, top) => {
    pen.fillRect(x * step, middle - top * half, step, Math.max(0.75, (top - bottom) * half));
  };
  pen.fillStyle = color;
  pen.globalAlpha = 0.55;
  for (let x = 0; x < low.length; x++) bar(x, low[x] * scale, high[x] * scale);
  pen.globalAlpha = 1;
  for (let x = 0; x < low.length; x++) bar(x, -rms[x] * scale, rms[x] * scale);
}

// ---- mel spectrogram ---------------------------------------------------------------------------------------------

// mel: { levels: Uint8Array [bands * frames], bands, frames, floorDb, stepDb }; the loudest level in it, in dB.
function loudestDb(mel) {
  return mel.floorDb + mel.stepDb * mel.levels.reduce((most, level) => Math.max(most, level), 0);
}

// One pixel a band and frame. `gainDb` is what level matching adds; `topDb` is the brightest level of A and B together.
function melImage(mel, { gainDb, topDb, dark }) {
  const ramp = dark ? RAMP_ON_DARK : RAMP_ON_LIGHT;
  const table = Uint32Array.from({ length: 256 }, (_, level) => {
    const db = mel.floorDb + mel.stepDb * level + gainDb;
    const [red, green, blue] = colorOnRamp(ramp, 1 - (topDb - db) / MEL_RANGE_DB);
    return (255 << 24) | (blue << 16) | (green << 8) | red; // a canvas pixel, lowest byte first
  });
  const canvas = document.createElement("canvas");
  canvas.width = mel.frames;
  canvas.height = mel.bands;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(mel.frames, mel.bands);
  const pixels = new Uint32Array(image.data.buffer);
  for (let band = 0; band < mel.bands; band++) {
    const row = (mel.bands - 1 - band) * mel.frames; // low bands at the bottom
    for (let frame = 0; frame < mel.frames; frame++) {
      pixels[row + frame] = table[mel.levels[band * mel.frames + frame]];
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

// A frame is drawn around its middle, so half of the first lies left of 0 s and is cut off.
function drawMel(pen, { mel, image, seconds, clipSeconds, width }) {
  const perSecond = width / seconds;
  pen.save();
  pen.beginPath();
  pen.rect(0, WAVE_PX + GAP_PX, clipSeconds * perSecond, MEL_PX);
  pen.clip();
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  const left = -0.5 * mel.frameSeconds * perSecond;
  pen.drawImage(image, left, WAVE_PX + GAP_PX, mel.frames * mel.frameSeconds * perSecond, MEL_PX);
  pen.restore();
}

// ---- time axis ---------------------------------------------------------------------------------------------------

function tickStep(seconds, width) {
  return TICK_STEPS_S.find((step) => (step / seconds) * width >= TICK_SPACING_PX) ?? TICK_STEPS_S.at(-1);
}

function drawAxis(canvas, { seconds, color, font }) {
  const { pen, width } = prepareCanvas(canvas, AXIS_PX);
  const step = tickStep(seconds, width);
  const decimals = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
  pen.fillStyle = color;
  pen.font = `13px ${font}`;
  pen.textBaseline = "bottom";
  for (let k = 0; k * step <= seconds * 1.0001; k++) {
    const x = (k * step * width) / seconds;
    const text = `${(k * step).toFixed(decimals)} s`;
    const half = pen.measureText(text).width / 2;
    pen.fillRect(Math.min(x, width - 1), 0, 1, 5);
    pen.fillText(text, Math.min(Math.max(x - half, 0), width - 2 * half), AXIS_PX);
  }
}

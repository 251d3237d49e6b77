// The A/B player on the page: buttons, keys, mouse and pictures around one Duo (audio.js, picture.js come before this).
//
// Labels and numbers from Python are written with textContent, so that a file name can never become markup.

const SIDES = ["A", "B"];
const SIDE_COLORS = ["#0072B2", "#D55E00"];
const STEP_S = 0.1; // one press of an arrow key
const SHORTEST_REGION_S = 0.03; // a shorter drag is a click
const players = new WeakMap();

class Player {
  constructor(host) {
    this.root = host.querySelector(".ab-player");
    this.duo = new Duo(() => this.#showState());
    this.clips = [];
    this.send = { region: () => {}, step: () => {} };
    this.playlist = null; // { at, of } of the pairs to be heard one after the other; at is -1 where A and B are none
    this.playsAll = false;
    this.listeners = new AbortController();
    this.#listen();
    this.resizing = new ResizeObserver(() => this.#draw());
    this.resizing.observe(this.#one(".tracks"));
    this.root.abPlayer = this; // for a look from the console, and for the browser tests
  }

  #one(selector) {
    return this.root.querySelector(selector);
  }

  #all(selector) {
    return [...this.root.querySelectorAll(selector)];
  }

  // ---- data from Python ------------------------------------------------------------------------------------------

  // send: { region([start, end] or null), step(-1 or 1) } tell Python what the listener asks for.
  update(data, send) {
    const others = data.identity !== this.identity;
    const goesOn = this.playsAll && (others || data.playlist?.at !== this.playlist?.at);
    this.send = send;
    this.window = data.window; // { start, end, label } in seconds, or null
    this.pitches = data.pitches;
    this.playlist = data.playlist;
    if (others) this.#takeClips(data);
    if (data.keepsRegion) this.#followRegion(data.region, others);
    if (goesOn && data.playlist) this.#playPair();
    this.labels = data.clips.map((clip) => clip.label);
    this.#showLabels();
    this.#showState();
    this.#draw();
  }

  #takeClips(data) {
    const known = new Map(this.clips.map((clip) => [clip.digest, clip]));
    const hadRegion = this.duo.region !== null;
    this.clips = data.clips.map((clip) => known.get(clip.digest) ?? unpackClip(clip));
    this.identity = data.identity;
    this.duo.setClips(this.clips);
    this.images = null;
    if (hadRegion && !data.keepsRegion) this.send.region(null);
  }

  // Marks what Python says is marked, where that is news: a drag is not taken back by an answer to an earlier one.
  #followRegion(region, others) {
    const asked = JSON.stringify(region);
    if (asked === this.askedRegion && !others) return;
    this.askedRegion = asked;
    const frames = region && [region.start, region.end].map((seconds) => Math.round(seconds * this.duo.rate));
    const same = JSON.stringify(frames) === JSON.stringify(this.duo.region);
    if (!same) this.duo.setRegion(frames && frames[0] < this.duo.frames ? frames : null);
  }

  get seconds() {
    return this.duo.frames / this.duo.rate;
  }

  get position() {
    return this.duo.position() / this.duo.rate;
  }

  // ---- buttons and keys ------------------------------------------------------------------------------------------

  #listen() {
    const options = { signal: this.listeners.signal };
    const on = (element, type, handler) => element.addEventListener(type, handler, options);
    on(this.#one(".play"), "click", () => this.#toggle());
    on(this.#one(".loop"), "click", () => this.duo.setLoop(!this.duo.loop));
    on(this.#one(".level"), "click", () => this.#setMatched(!this.duo.matched));
    this.#all(".source").forEach((button, side) => on(button, "click", () => this.duo.select(side)));
    on(this.root, "keydown", (event) => this.#key(event));
    // A click with the mouse gives the keys to the player as a whole: Space then plays and does not press again.
    on(this.#one(".bar"), "click", (event) => event.detail > 0 && this.root.focus({ preventScroll: true }));
    on(this.#one(".all"), "click", () => this.#togglePlayAll());
    on(this.#one(".before"), "click", () => this.#step(-1));
    on(this.#one(".after"), "click", () => this.#step(1));
    on(this.#one(".list"), "click", (event) => event.detail > 0 && this.root.focus({ preventScroll: true }));
    this.#listenToDrag(this.#one(".overlay"), on);
  }

  async #toggle() {
    const sounds = await this.duo.toggle();
    const note = "No sound: the browser found no audio output that answers. Check the device and press play again.";
    this.#one(".note").textContent = sounds ? "" : note;
  }

  // ---- the playlist ----------------------------------------------------------------------------------------------

  #togglePlayAll() {
    if (!this.playlist || this.playlist.of === 0) return;
    if (this.playsAll) {
      this.#setPlaysAll(false);
      this.duo.pause();
    } else if (this.playlist.at < 0) {
      this.#setPlaysAll(true);
      this.send.step(1); // to the first; update() then plays it
    } else {
      this.#playPair();
    }
  }

  #setPlaysAll(playsAll) {
    this.playsAll = playsAll;
    this.#showList();
  }

  // A, then B, then Python is asked for the next pair, whose clips come through update().
  #playPair() {
    const then = (next) => (whole) => (whole ? next() : this.#setPlaysAll(false));
    const askForNext = () => {
      if (this.playlist && this.playlist.at < this.playlist.of - 1) this.send.step(1);
      else this.#setPlaysAll(false);
    };
    this.duo.playThrough(
      0,
      then(() => this.duo.playThrough(1, then(askForNext))),
    );
    this.#setPlaysAll(true);
  }

  #step(by) {
    if (this.playlist && this.playlist.of > 0) this.send.step(by);
  }

  #showList() {
    const { playlist } = this;
    this.#one(".list").hidden = !playlist;
    if (!playlist) return;
    const { at, of } = playlist;
    this.#one(".all").setAttribute("aria-pressed", this.playsAll);
    this.#one(".all").disabled = of === 0;
    this.#one(".before").disabled = of === 0 || at === 0;
    this.#one(".after").disabled = of === 0 || at === of - 1;
    const place = at < 0 ? `not one of the ${of}` : `${at + 1} of ${of}`;
    this.#one(".list-text").textContent = `${of === 0 ? "none" : place} ${playlist.short}`;
    this.#one(".list").setAttribute("aria-label", playlist.title);
    this.#one(".list").title = playlist.title;
  }

  // ---- level, keys -----------------------------------------------------------------------------------------------

  #setMatched(matched) {
    this.duo.setMatched(matched);
    this.images = null;
    this.#showState();
    this.#draw();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = this.#actionFor(event);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit has keys of its own
    if (!event.repeat || event.key.startsWith("Arrow")) action();
  }

  #actionFor(event) {
    const onButton = event.target.closest("button");
    const onSource = event.target.closest(".source");
    const { duo } = this;
    const paired = this.clips.length > 1;
    switch (event.key.toLowerCase()) {
      case " ":
        return onButton ? null : () => this.#toggle(); // a focused button is pressed by Space, as everywhere
      case "a":
        return paired && (() => duo.select(0));
      case "b":
        return paired && (() => duo.select(1));
      case "x":
        return paired && (() => duo.select(1 - duo.active));
      case "l":
        return () => duo.setLoop(!duo.loop);
      case "q":
        return this.playlist && (() => this.#togglePlayAll());
      case ",":
        return this.playlist && (() => this.#step(-1));
      case ".":
        return this.playlist && (() => this.#step(1));
      case "m":
        return paired && (() => this.#setMatched(!duo.matched));
      case "arrowleft":
      case "arrowright":
      case "arrowup":
      case "arrowdown":
        return onSource ? () => this.#selectByArrow() : this.#moveByArrow(event.key);
      case "home":
        return () => this.seek(duo.bounds[0] / duo.rate);
      case "escape":
        return duo.region && (() => this.setRegion(null));
      default:
        return null;
    }
  }

  #selectByArrow() {
    this.duo.select(1 - this.duo.active);
    this.#all(".source")[this.duo.active].focus();
  }

  #moveByArrow(key) {
    const step = { ArrowLeft: -STEP_S, ArrowRight: STEP_S }[key];
    return step ? () => this.seek(this.position + step) : null;
  }

  // ---- time: seek, region ----------------------------------------------------------------------------------------

  seek(seconds) {
    this.duo.seek(seconds * this.duo.rate);
    this.#showTime();
  }

  // [start, end] in seconds or null; Python is told in either case.
  setRegion(region) {
    this.duo.setRegion(region && region.map((seconds) => Math.round(seconds * this.duo.rate)));
    this.#showState();
    this.send.region(region && region.map((seconds) => Math.round(seconds * 1000) / 1000));
  }

  #listenToDrag(surface, on) {
    let from = null;
    const secondsAt = (event) => {
      const box = surface.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * this.seconds;
    };
    const span = (event) => [from, secondsAt(event)].sort((a, b) => a - b);
    const isDrag = ([start, end]) => end - start >= Math.max(SHORTEST_REGION_S, this.seconds * 0.004);
    on(surface, "pointerdown", (event) => {
      if (event.button !== 0) return;
      surface.setPointerCapture(event.pointerId);
      from = secondsAt(event);
      this.root.focus({ preventScroll: true });
      event.preventDefault();
    });
    on(surface, "pointermove", (event) => {
      if (from !== null && isDrag(span(event))) this.#showSpan(".region", span(event));
    });
    on(surface, "pointerup", (event) => {
      if (from === null) return;
      const dragged = span(event);
      if (isDrag(dragged)) this.setRegion(dragged);
      else this.#click(from);
      from = null;
    });
    on(surface, "pointercancel", () => {
      from = null;
      this.#showState();
    });
  }

  // A click moves the playhead; outside of a region it also takes the region away.
  #click(seconds) {
    const frame = seconds * this.duo.rate;
    const [start, end] = this.duo.bounds;
    if (this.duo.region && (frame < start || frame >= end)) this.setRegion(null);
    this.seek(seconds);
  }

  // ---- what is shown ---------------------------------------------------------------------------------------------

  #showLabels() {
    const paired = this.clips.length > 1;
    this.root.classList.toggle("single", !paired);
    const names = this.labels.map((label, side) => (paired ? `${SIDES[side]}: ${label}` : label));
    this.root.setAttribute("aria-label", `${paired ? "A/B audio player" : "Audio player"}, ${names.join(", ")}`);
    names.forEach((name, side) => {
      this.#all(".name")[side].textContent = this.labels[side];
      this.#all(".name")[side].title = this.labels[side];
      this.#all(".source")[side].setAttribute("aria-label", name);
      this.#all(".lane canvas")[side].setAttribute("aria-label", `Waveform and mel spectrogram of ${name}`);
    });
    this.#all(".pitches").forEach((gutter) => gutter.replaceChildren(...this.pitches.map(pitchMark)));
  }

  #showState() {
    if (this.clips.length === 0) return;
    const { duo } = this;
    this.root.classList.toggle("playing", duo.playing);
    this.#one(".play").setAttribute("aria-label", duo.playing ? "Pause" : "Play");
    this.#one(".loop").setAttribute("aria-pressed", duo.loop);
    this.#one(".level").setAttribute("aria-pressed", duo.matched);
    this.#all(".source").forEach((button, side) => {
      button.setAttribute("aria-checked", side === duo.active);
      button.tabIndex = side === duo.active ? 0 : -1;
    });
    this.#all(".track").forEach((track, side) => track.classList.toggle("active", side === duo.active));
    this.clips.forEach((_, side) => (this.#all(".gain")[side].textContent = gainText(duo.gain(side))));
    this.#showWindow();
    this.#showList();
    const region = duo.region && duo.region.map((frame) => frame / duo.rate);
    this.#showSpan(".region", region);
    this.#one(".region-text").textContent = region ? `${region.map((s) => s.toFixed(2)).join(" – ")} s` : "";
    this.#showTime();
    if (duo.playing) this.#follow();
  }

  #showWindow() {
    const { window: marked } = this;
    this.#showSpan(".window", marked && [marked.start, marked.end]);
    this.#one(".legend").hidden = !marked;
    const text = marked && `${marked.label}: ${marked.start.toFixed(2)} – ${marked.end.toFixed(2)} s`;
    this.#one(".window-text").textContent = text ?? "";
  }

  #showSpan(selector, span) {
    const element = this.#one(selector);
    element.hidden = !span;
    if (!span) return;
    const [start, end] = span.map((seconds) => Math.min(seconds / this.seconds, 1) * 100);
    element.style.left = `${start}%`;
    element.style.width = `${Math.max(end - start, 0)}%`;
  }

  #showTime() {
    const position = Math.min(this.position, this.seconds);
    this.#one(".playhead").style.left = `${(position / this.seconds) * 100}%`;
    this.#one(".time").textContent = `${position.toFixed(2)} / ${this.seconds.toFixed(2)} s`;
  }

  // Moves the playhead once a screen frame for as long as it plays.
  #follow() {
    cancelAnimationFrame(this.frameRequest);
    this.frameRequest = requestAnimationFrame(() => {
      this.#showTime();
      if (this.duo.playing) this.#follow();
    });
  }

  // ---- pictures --------------------------------------------------------------------------------------------------

  #draw() {
    if (this.clips.length === 0) return;
    const style = getComputedStyle(this.root);
    const gains = this.clips.map((_, side) => this.duo.gain(side));
    const loudest = Math.max(...this.clips.map((clip, side) => clip.peak * gains[side]), 1e-6);
    this.#paintMels(gains, isDark(style.getPropertyValue("--st-background-color") || "#fff"));
    this.clips.forEach((clip, side) => {
      const { pen, width } = prepareCanvas(this.#all(".lane canvas")[side], WAVE_PX + GAP_PX + MEL_PX);
      const { samples, mel } = clip;
      const scale = (0.96 * gains[side]) / loudest;
      drawWave(pen, { samples, frames: this.duo.frames, width, scale, color: SIDE_COLORS[side] });
      const clipSeconds = samples.length / clip.rate;
      drawMel(pen, { mel, image: this.images[side], seconds: this.seconds, clipSeconds, width });
    });
    drawAxis(this.#one(".axis"), { seconds: this.seconds, color: style.color, font: style.fontFamily });
  }

  #paintMels(gains, dark) {
    if (this.images && this.imagesDark === dark) return;
    const gainsDb = gains.map((gain) => 20 * Math.log10(gain));
    const topDb = Math.max(...this.clips.map((clip, side) => loudestDb(clip.mel) + gainsDb[side]));
    this.images = this.clips.map((clip, side) => melImage(clip.mel, { gainDb: gainsDb[side], topDb, dark }));
    this.imagesDark = dark;
  }

  destroy() {
    cancelAnimationFrame(this.frameRequest);
    this.duo.dispose();
    this.listeners.abort();
    this.resizing.disconnect();
  }
}

function unpackClip({ digest, rate, rms, pcm, fullScale, mel }) {
  const samples = samplesFromPcm(pcm, fullScale);
  return { digest, rate, rms, samples, peak: peakOf(samples), mel: { ...mel, levels: bytesFromBase64(mel.levels) } };
}

function gainText(gain) {
  return gain > 0.999 ? "" : `${(20 * Math.log10(gain)).toFixed(1)} dB`.replace("-", "−");
}

function pitchMark({ text, share }) {
  const mark = document.createElement("span");
  mark.textContent = text;
  mark.style.bottom = `${share * 100}%`;
  return mark;
}

// Streamlit calls this again whenever data or theme change, and the returned function once, when the player goes.
export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  let player = players.get(parentElement);
  if (!player) {
    player = new Player(parentElement);
    players.set(parentElement, player);
  }
  player.update(data, {
    // Counted, so that Python also hears of a region that is the one it heard of last.
    region: (region) => {
      const [start, end] = region ?? [null, null];
      player.told = (player.told ?? 0) + 1;
      setStateValue("region", { clips: data.identity, start, end, told: player.told });
    },
    step: (by) => setTriggerValue("step", by),
  });
  return () => {
    player.destroy();
    players.delete(parentElement);
  };
}

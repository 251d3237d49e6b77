// The sound of the A/B player, without any drawing.
//
// A and B are always played together, started at one instant of the audio clock, and only their gains decide which one
// is heard: so a switch keeps its place to the sample. Everything is counted in whole samples, because the audio
// context runs at the clips' own rate (the browser then resamples the sum once, properly, on its way out).

const SWITCH_S = 0.012; // crossfade between A and B
const RELAUNCH_S = 0.012; // crossfade between an old and a new pair of voices (seek, new region, new B)
const LEAD_S = 0.03; // how far ahead A and B are scheduled: told too late, they would start apart
const SWITCH_LEAD_S = 0.008; // the same for a switch
const GAIN_POINTS = 1025; // of the curves that turn a share into the two gains
const EDGE_S = 0.003; // fade at the edges of a region, so that its cut does not click
const LEVEL_TIME_CONSTANT_S = 0.005;
const QUIETEST_RMS = 1e-4; // -80 dB: a clip below this is silence, and silence has no level to match
const ANSWER_MS = 1500; // how long an audio device may take to start

// One audio context a page and sample rate, and the one player that sounds: shared by all players on the page.
function sharedAudio() {
  const slot = Symbol.for("patchbay.audio");
  window[slot] ??= { contexts: new Map(), playing: null };
  return window[slot];
}

function contextAt(rate) {
  const { contexts } = sharedAudio();
  if (!contexts.has(rate)) contexts.set(rate, new AudioContext({ latencyHint: "interactive", sampleRate: rate }));
  return contexts.get(rate);
}

function bytesFromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// 16-bit samples and the value that full scale stands for -> Float32Array.
function samplesFromPcm(base64, fullScale) {
  const integers = new Int16Array(bytesFromBase64(base64).buffer);
  return Float32Array.from(integers, (value) => (value / 32767) * fullScale);
}

// The part [start, end) of a clip; silence where the clip is already over, so that A and B are always equally long.
function cutOut(samples, start, end, fadeFrames) {
  const part = new Float32Array(end - start);
  part.set(samples.subarray(Math.min(start, samples.length), Math.min(end, samples.length)));
  for (let i = 0; i < Math.min(fadeFrames, part.length); i++) {
    part[i] *= i / fadeFrames;
    part[part.length - 1 - i] *= i / fadeFrames;
  }
  return part;
}

// One started copy of one clip, with a gain of its own to fade it in and out.
class Voice {
  constructor(context, part, output) {
    this.context = context;
    this.source = context.createBufferSource();
    this.source.buffer = context.createBuffer(1, part.length, context.sampleRate);
    this.source.buffer.copyToChannel(part, 0);
    this.fade = context.createGain();
    this.source.connect(this.fade).connect(output);
  }

  start(when, offsetFrames, { loop, fadeIn }) {
    this.startedAt = when;
    this.fullAt = fadeIn ? when + RELAUNCH_S : when;
    const gain = this.fade.gain;
    gain.setValueAtTime(fadeIn ? 0 : 1, when);
    if (fadeIn) gain.linearRampToValueAtTime(1, this.fullAt);
    this.source.loop = loop;
    this.source.start(when, offsetFrames / this.context.sampleRate);
  }

  // Fades out from `when` on, also where the fade-in has not come to its end by then.
  release(when) {
    this.source.onended = null;
    if (when <= this.startedAt) {
      this.source.stop();
      return;
    }
    const reached = when >= this.fullAt ? 1 : (when - this.startedAt) / RELAUNCH_S;
    const gain = this.fade.gain;
    gain.cancelScheduledValues(when);
    gain.linearRampToValueAtTime(reached, when);
    gain.linearRampToValueAtTime(0, when + RELAUNCH_S);
    this.source.stop(when + RELAUNCH_S);
  }
}

// The frame of the clips that voices on this schedule have reached when the clock shows `clockFrame`.
function positionOn({ start, end, loop, from, launchFrame }, clockFrame) {
  const frame = Math.max(start, from + Math.round(clockFrame) - launchFrame);
  if (frame < end) return frame;
  return loop ? start + ((frame - start) % (end - start)) : end;
}

class Duo {
  // onChange() is called whenever what the buttons show has changed.
  constructor(onChange) {
    this.onChange = onChange;
    this.clips = []; // one or two of { digest, rate, rms, samples: Float32Array }
    this.rate = 0;
    this.frames = 0; // length of the longer clip
    this.active = 0; // 0: A is heard, 1: B
    this.playing = false;
    this.loop = false;
    this.matched = true;
    this.region = null; // [start, end) in frames
    this.loopWithoutRegion = false; // what `loop` returns to when the region goes
    this.through = null; // { end, ended } while one clip is played from its start to its own end: see playThrough
    this.cursor = 0; // where it stands while it is paused
    this.schedule = null; // what the voices do while it plays: see #launch
    this.voices = [];
    this.lastSwitch = null;
  }

  // ---- clips ---------------------------------------------------------------------------------------------------

  // Takes one clip or two. If A stays, B is swapped in place: the sound goes on and the playhead keeps its place.
  setClips(clips) {
    const sameA = this.clips.length > 0 && this.clips[0].digest === clips[0].digest && this.rate === clips[0].rate;
    if (!sameA) {
      this.pause();
      this.cursor = 0;
    }
    if (this.rate !== clips[0].rate) this.#connect(clips[0].rate);
    this.#rearrange(() => {
      this.clips = clips;
      this.frames = Math.max(...clips.map((clip) => clip.samples.length));
      this.region = null;
      this.loop = this.loopWithoutRegion;
    });
    this.cursor = Math.min(this.cursor, this.frames - 1);
    if (clips.length === 1) this.select(0);
    this.#applyLevels();
  }

  #connect(rate) {
    this.dispose();
    this.rate = rate;
    this.lastSwitch = null;
    this.context = contextAt(rate);
    this.output = this.context.createGain();
    this.output.connect(this.context.destination);
    this.levels = [0, 1].map(() => this.context.createGain());
    this.mixers = [0, 1].map(() => this.context.createGain());
    this.mixers.forEach((mixer, side) => mixer.connect(this.levels[side]).connect(this.output));
    // One signal from -1 (A) to 1 (B) makes both gains, so that no pause of the page can come between the two.
    this.fader = this.context.createConstantSource();
    this.mixers.forEach((mixer, side) => {
      const gain = (share) => (side === 0 ? Math.cos((share * Math.PI) / 2) : Math.sin((share * Math.PI) / 2));
      const shaper = this.context.createWaveShaper();
      shaper.curve = Float32Array.from({ length: GAIN_POINTS }, (_, k) => gain(k / (GAIN_POINTS - 1)));
      mixer.gain.value = 0;
      this.fader.connect(shaper).connect(mixer.gain);
    });
    this.#applySwitch(0);
    this.fader.start();
  }

  // ---- transport -----------------------------------------------------------------------------------------------

  get bounds() {
    if (this.through) return [0, this.through.end];
    return this.region ?? [0, this.frames];
  }

  // The frame that sounds now (or would, if it were playing).
  position() {
    return this.playing ? positionOn(this.schedule, this.context.currentTime * this.rate) : this.cursor;
  }

  // Resolves to whether there is sound: false where the browser has no audio device that answers.
  async play() {
    const awake = await this.#wake();
    if (!awake || this.playing) return awake;
    const shared = sharedAudio();
    if (shared.playing !== this) shared.playing?.pause();
    shared.playing = this;
    this.#launch(() => this.cursor);
    this.playing = true;
    this.onChange();
    return true;
  }

  // Plays one clip once from its start to its own end, whatever the region and the loop are. `ended(whole)` is called
  // then, or with false as soon as anything else is asked of the player.
  async playThrough(side, ended) {
    this.pause();
    this.select(side);
    this.cursor = 0;
    const through = { end: this.clips[side].samples.length, ended };
    this.through = through;
    if (!(await this.play()) || this.through !== through) this.#leave(through);
  }

  // Ends what playThrough began; `through` is the one that is meant.
  #leave(through, whole = false) {
    if (this.through === through) this.through = null;
    if (!through || through.left) return;
    through.left = true;
    through.ended(whole);
  }

  async #wake() {
    if (this.context.state === "running") return true;
    const tooLate = new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    await Promise.race([this.context.resume(), tooLate]);
    return this.context.state === "running";
  }

  pause() {
    this.#leave(this.through);
    if (!this.playing) return;
    const position = this.position();
    this.playing = false;
    this.cursor = position < this.schedule.end ? position : this.schedule.start;
    this.voices.forEach((voice) => voice.release(this.context.currentTime));
    this.voices = [];
    this.onChange();
  }

  toggle() {
    if (!this.playing) return this.play();
    this.pause();
    return Promise.resolve(true);
  }

  seek(frame) {
    this.#leave(this.through);
    const target = Math.round(Math.min(Math.max(frame, 0), this.frames - 1));
    if (this.playing) this.#launch(() => target);
    else this.cursor = target;
    this.onChange();
  }

  setLoop(loop) {
    this.#rearrange(() => {
      this.loop = loop;
      this.loopWithoutRegion = loop;
    });
  }

  // A region loops at once; null takes it away. Playing goes on where it is, or from the region's start if outside.
  setRegion(region) {
    this.#rearrange(() => {
      this.region = region;
      this.loop = region ? true : this.loopWithoutRegion;
      if (!this.playing && region) this.cursor = region[0];
    });
  }

  // Clips, loop and region decide what the voices hold; a change renews the voices at the place they have reached.
  #rearrange(change) {
    this.#leave(this.through);
    const before = this.schedule;
    change();
    if (this.playing) this.#launch((clockFrame) => positionOn(before, clockFrame));
    this.onChange();
  }

  // Starts A and B at one instant in place of the voices that sound now. `place` tells where in the clips, given the
  // clock at that instant. All slow work comes before the clock is read.
  #launch(place, lead = LEAD_S) {
    const { context, rate } = this;
    const loop = this.loop && !this.through;
    const [start, end] = this.bounds;
    const edge = this.region && !this.through ? Math.round(EDGE_S * rate) : 0;
    const parts = this.clips.map((clip) => cutOut(clip.samples, start, end, edge));
    const voices = parts.map((part, side) => new Voice(context, part, this.mixers[side]));
    const launchFrame = Math.ceil((context.currentTime + lead) * rate);
    const when = launchFrame / rate;
    const asked = place(launchFrame);
    const from = asked < start || asked >= end ? start : asked;
    const fadeIn = this.voices.length > 0 || from > start;
    voices.forEach((voice) => voice.start(when, from - start, { loop, fadeIn }));
    this.voices.forEach((voice) => voice.release(when));
    voices[0].source.onended = () => this.#finish();
    this.voices = voices;
    this.schedule = { start, end, loop, from, launchFrame };
    // The page was held up: once more. What the page knows of the time lags behind the sound itself.
    if (context.currentTime + LEAD_S / 3 >= when && lead < 1) this.#launch(place, 4 * lead);
  }

  #finish() {
    const { through } = this;
    this.playing = false;
    this.voices = [];
    this.through = null;
    this.cursor = this.bounds[0];
    this.onChange();
    this.#leave(through, true);
  }

  // ---- which one, and how loud -----------------------------------------------------------------------------------

  select(side) {
    if (side !== this.active) this.#leave(this.through);
    if (side === this.active || side >= this.clips.length) return;
    this.active = side;
    this.#applySwitch(this.playing ? SWITCH_S : 0);
    this.onChange();
  }

  // Equal power: gains cos and sin of a share that runs from 0 (A) to 1 (B), from wherever an earlier switch has come.
  #applySwitch(seconds) {
    const now = this.context.currentTime;
    const from = this.#share(now);
    const to = this.active;
    const at = now + SWITCH_LEAD_S;
    this.lastSwitch = { from, to, at, seconds };
    const { offset } = this.fader;
    offset.cancelScheduledValues(0);
    if (seconds === 0) offset.setValueAtTime(2 * to - 1, now);
    else offset.setValueCurveAtTime([2 * from - 1, 2 * to - 1], at, seconds);
  }

  #share(now) {
    if (!this.lastSwitch) return this.active;
    const { from, to, at, seconds } = this.lastSwitch;
    if (now >= at + seconds) return to;
    return from + (to - from) * Math.max(0, (now - at) / seconds);
  }

  setMatched(matched) {
    this.matched = matched;
    this.#applyLevels();
    this.onChange();
  }

  // The louder clip is turned down to the RMS of the quieter one; nothing is ever turned up, so nothing can clip.
  gain(side) {
    const levels = this.clips.map((clip) => clip.rms);
    if (!this.matched || levels.length < 2 || Math.min(...levels) < QUIETEST_RMS) return 1;
    return Math.min(...levels) / levels[side];
  }

  #applyLevels() {
    const now = this.context.currentTime;
    this.clips.forEach((_, side) => {
      const gain = this.levels[side].gain;
      gain.cancelScheduledValues(0);
      if (this.playing) gain.setTargetAtTime(this.gain(side), now, LEVEL_TIME_CONSTANT_S);
      else gain.setValueAtTime(this.gain(side), now);
    });
  }

  // Silences this player for good; the shared context stays for the others.
  dispose() {
    if (this.playing) this.pause();
    const shared = sharedAudio();
    if (shared.playing === this) shared.playing = null;
    const { output, fader } = this;
    const silence = () => {
      output.disconnect();
      fader.stop();
    };
    if (output) setTimeout(silence, 2000 * RELAUNCH_S);
    this.output = null;
  }
}

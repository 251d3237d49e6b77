// Three sounds of one length, A, B and X, of which one is heard at a time; nothing about them is drawn.
//
// Each is a Duo of one clip (audio.js comes before this): whichever begins makes the one that sounds stop.

const NAMES = ["A", "B", "X"];
const blindPlayers = new WeakMap();

class BlindPlayer {
  constructor(host) {
    this.root = host.querySelector(".ab-player");
    this.duos = NAMES.map(() => new Duo(() => this.#show()));
    this.last = 0;
    this.listeners = new AbortController();
    const options = { signal: this.listeners.signal };
    this.buttons = [...this.root.querySelectorAll(".one")];
    this.buttons.forEach((button, at) => button.addEventListener("click", (event) => this.#press(at, event), options));
    this.root.addEventListener("keydown", (event) => this.#key(event), options);
    this.root.abPlayer = this; // for a look from the console, and for the browser tests
  }

  update({ trial, rate, sounds }) {
    if (trial === this.trial) return;
    this.trial = trial;
    this.duos.forEach((duo, at) => {
      duo.pause();
      duo.setClips([{ digest: `${trial} ${at}`, rate, rms: 0, samples: samplesFromPcm(sounds[at], 1) }]);
    });
    this.#show();
  }

  get sounding() {
    return this.duos.findIndex((duo) => duo.playing);
  }

  // Plays one: where another sounds at its place, else where it was left.
  async play(at) {
    const from = this.duos[this.sounding < 0 ? this.last : this.sounding].position();
    this.last = at;
    this.duos[at].seek(from);
    const sounds = this.duos[at].playing || (await this.duos[at].play());
    const note = "No sound: the browser found no audio output that answers. Check the device and press again.";
    this.root.querySelector(".note").textContent = sounds ? "" : note;
  }

  stop() {
    const at = this.sounding;
    if (at >= 0) this.duos[at].pause();
  }

  #press(at, event) {
    if (this.sounding === at) this.stop();
    else this.play(at);
    if (event.detail > 0) this.root.focus({ preventScroll: true });
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = this.#actionFor(event);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit has keys of its own
    if (!event.repeat) action();
  }

  #actionFor(event) {
    switch (event.key.toLowerCase()) {
      case "a":
        return () => this.play(0);
      case "b":
        return () => this.play(1);
      case "x":
        return () => this.play(2);
      case " ":
        if (event.target.closest("button")) return null; // a focused button is pressed by Space, as everywhere
        return () => (this.sounding < 0 ? this.play(this.last) : this.stop());
      case "home":
        return () => this.duos.forEach((duo) => duo.seek(0));
      default:
        return null;
    }
  }

  #show() {
    if (!this.trial) return;
    this.buttons.forEach((button, at) => button.setAttribute("aria-pressed", at === this.sounding));
    this.#showTime();
    cancelAnimationFrame(this.frameRequest);
    if (this.sounding >= 0) this.frameRequest = requestAnimationFrame(() => this.#show());
  }

  #showTime() {
    const duo = this.duos[this.sounding < 0 ? this.last : this.sounding];
    this.root.querySelector(".time").textContent = `${(duo.position() / duo.rate).toFixed(2)} s`;
  }

  destroy() {
    cancelAnimationFrame(this.frameRequest);
    this.duos.forEach((duo) => duo.dispose());
    this.listeners.abort();
  }
}

// Streamlit calls this again whenever data or theme change, and the returned function once, when the player goes.
export default function mount({ data, parentElement }) {
  let player = blindPlayers.get(parentElement);
  if (!player) {
    player = new BlindPlayer(parentElement);
    blindPlayers.set(parentElement, player);
  }
  player.update(data);
  return () => {
    player.destroy();
    blindPlayers.delete(parentElement);
  };
}

// The address as it stands in the browser at the moment of the press: Python hears of it later.

const SAID_MS = 2000;

// Where the page comes over plain http from another machine there is no clipboard; the older way still works there.
async function copyText(text, field) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    field.hidden = false;
    field.value = text;
    field.select();
    const copied = document.execCommand("copy");
    field.hidden = copied;
    return copied;
  }
}

export default function mount({ parentElement }) {
  const button = parentElement.querySelector("button");
  const text = parentElement.querySelector(".text");
  const field = parentElement.querySelector(".address");
  let later;
  button.onclick = async () => {
    const copied = await copyText(window.location.href, field);
    text.textContent = copied ? "Link copied" : "Copy it from here";
    button.focus();
    if (!copied) field.select();
    clearTimeout(later);
    if (copied) later = setTimeout(() => (text.textContent = "Copy link"), SAID_MS);
  };
  return () => clearTimeout(later);
}

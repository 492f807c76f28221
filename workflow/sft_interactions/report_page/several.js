// Pages of studies, each opened in a frame when it is asked for.

async function open(place) {
  const packed = document.getElementById(`packed-${place.id}`).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const page = new Blob([await new Response(stream).arrayBuffer()], { type: "text/html;charset=utf-8" });
  const frame = document.createElement("iframe");
  frame.title = place.dataset.title;
  frame.src = URL.createObjectURL(page);
  place.append(frame);
}

for (const button of document.querySelectorAll("button[aria-controls]")) {
  button.addEventListener("click", async () => {
    const place = document.getElementById(button.getAttribute("aria-controls"));
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    if (place.hidden || place.querySelector("iframe")) return;
    try {
      await open(place);
    } catch (error) {
      const failure = document.getElementById("failure");
      failure.textContent = `This browser cannot open the study (${error.message}). Open its own page.`;
      failure.hidden = false;
    }
  });
}
document.body.dataset.ready = "all";

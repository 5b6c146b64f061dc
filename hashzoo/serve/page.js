"use strict";
// Without this the page works by its form; with it an image can be dropped anywhere, and choosing one is asking.
const form = document.getElementById("ask");
const first = document.getElementById("first");
const more = form.querySelector("details");

first.addEventListener("change", () => {
  if (first.files.length && !more.open) form.requestSubmit();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
addEventListener("dragleave", () => form.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  const taken = new DataTransfer();
  taken.items.add(event.dataTransfer.files[0]);
  const aimed = more.contains(event.target) ? more.querySelector("input") : first;
  aimed.files = taken.files;
  if (!more.open) form.requestSubmit();
});

//! What a person sees.

/// The whole page: it asks the API beside it for everything it shows.
pub(crate) const HTML: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Emojivoto</title>
<style>
  body { font: 18px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem; }
  button { font-size: 2rem; padding: .5rem; margin: .25rem; cursor: pointer; }
  #said { min-height: 1.5em; }
</style>
<h1>Vote for your favourite</h1>
<div id="list"></div>
<p id="said" role="status"></p>
<h2>Leaderboard</h2>
<ol id="board"></ol>
<script>
  const by = id => document.getElementById(id);
  const ask = path => fetch(path).then(async r => { const body = await r.json(); if (!r.ok) throw body.error; return body; });
  const signs = {};
  async function board() {
    const rows = await ask("/api/leaderboard");
    by("board").replaceChildren(...rows.map(row => {
      const item = document.createElement("li");
      item.textContent = `${signs[row.shortcode]} ${row.votes}`;
      return item;
    }));
  }
  async function vote(shortcode) {
    try {
      await ask("/api/vote?choice=" + encodeURIComponent(shortcode));
      by("said").textContent = `You voted for ${signs[shortcode]}`;
    } catch (error) {
      by("said").textContent = String(error);
    }
    await board();
  }
  (async () => {
    const list = await ask("/api/list");
    by("list").replaceChildren(...list.map(emoji => {
      signs[emoji.shortcode] = emoji.unicode;
      const button = document.createElement("button");
      button.textContent = emoji.unicode;
      button.title = emoji.shortcode;
      button.onclick = () => vote(emoji.shortcode);
      return button;
    }));
    await board();
  })();
</script>
</html>
"#;

// Chainlit's page connects twice when it is loaded on a conversation: without it, and a moment later with it. Each of the
// two asks for a cookie first, and whichever is answered last stays: now and then the wrong one, and the conversation never
// appears. So these requests are answered in the order in which they were made, with time in between to connect.
(() => {
  const fetch = window.fetch.bind(window);
  let before = Promise.resolve();
  window.fetch = (resource, options) => {
    const answer = fetch(resource, options);
    if (!String(resource.url ?? resource).includes("/set-session-cookie")) {
      return answer;
    }
    const inOrder = before.then(() => answer);
    const settle = () => new Promise((done) => setTimeout(done, 100));
    before = inOrder.then(settle, settle);
    return inOrder;
  };
})();

// Whoever is logged out belongs on the login page, which is the server's: Chainlit's own knows no passwords.
(() => {
  const root = document.querySelector('meta[property="og:root_path"]')?.content ?? "";
  for (const name of ["pushState", "replaceState"]) {
    const change = history[name].bind(history);
    history[name] = (state, title, url) => {
      if (url && new URL(url, location.href).pathname === `${root}/login`) {
        location.assign(`${root}/login`);
      } else {
        change(state, title, url);
      }
    };
  }
})();

// Browsers start no workers for pages that are opened from disk. There, and only there, the search runs in a hidden frame
// that looks like a worker to it: messages in, messages out, importScripts.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = `<script>
        const up = parent
        window.hear = data => dispatchEvent(new MessageEvent("message", { data }))
        window.postMessage = message => up.postMessage(message, "*")
        window.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
          document.head.append(Object.assign(document.createElement("script"), { src: url, onload: done, onerror: failed }))
        })), Promise.resolve())
      <\/script><script src="${url}"><\/script>`
      this.ready = new Promise(resolve => { this.frame.onload = resolve })
      window.addEventListener("message", event => {
        if (event.source !== this.frame.contentWindow) return
        const heard = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(heard)
        if (this.onmessage) this.onmessage(heard)
      })
      document.body.append(this.frame)
    }
    postMessage(message) {
      this.ready.then(() => this.frame.contentWindow.hear(structuredClone(message)))
    }
    terminate() {
      this.frame.remove()
    }
  }
}

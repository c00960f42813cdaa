# SPDX-License-Identifier: MIT
"""A headless Chromium, spoken to by its debugging protocol over two pipes: JSON, each ended by a
NUL byte. It has a profile folder of its own and no network."""

import base64
import json
import os
import shutil
import subprocess
import tempfile

from runner import PATIENCE, until

NAMES = ("chromium-headless-shell", "chromium")


def program():
    """The browser's path, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, width=1400, height=1000):
        self.tmp = tempfile.TemporaryDirectory(prefix="cellos-browser-", ignore_cleanup_errors=True)
        self.number, self.events, self.rest = 0, [], b""
        to_read, self.to = os.pipe()
        self.answers, answers_write = os.pipe()

        def place():
            # The protocol is at descriptors 3 and 4; the pipes may stand there already.
            high = [os.dup2(fd, n) for fd, n in ((to_read, 20), (answers_write, 21))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
             "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
             f"--user-data-dir={self.tmp.name}", f"--window-size={width},{height}", "about:blank"],
            preexec_fn=place, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self.tmp.name})
        os.close(to_read)
        os.close(answers_write)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank", width=width, height=height)
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"],
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.rest:
            chunk = os.read(self.answers, 1 << 20)
            assert chunk, "the browser has ended"
            self.rest += chunk
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def js(self, expression):
        """The value of an expression; promises are awaited."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                        awaitPromise=True)
        assert "exceptionDetails" not in got, (expression, got["exceptionDetails"])
        return got["result"].get("value")

    def open(self, path, patience=PATIENCE):
        """Until the page says that it is ready."""
        self.events.clear()
        self.call("Page.navigate", url=f"file://{path}")
        until(lambda: self.js("document.documentElement?.dataset.ready"), "a page that is ready",
              patience=patience)

    def media(self, **features):
        """prefers-color-scheme and the like; type= the medium."""
        medium = features.pop("type", "")
        self.call("Emulation.setEmulatedMedia", media=medium, features=[
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True,
                                          printBackground=True)["data"])

    def said(self, method):
        """The parameters of the events with this name since open()."""
        return [e["params"] for e in self.events if e.get("method") == method]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        # Its processes end with it, and write no more into the profile.
        self.session = None
        try:
            self.call("Browser.close")
            self.process.wait(30)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.answers)
        self.tmp.cleanup()

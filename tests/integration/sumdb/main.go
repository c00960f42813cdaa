// SPDX-License-Identifier: MIT

// Checks evidence logs with Go's module transparency code (golang.org/x/mod/sumdb), which shares
// nothing with this project but the formats:
//
//	sumdb log VKEY SEGMENT...             every checkpoint of the log; prints how many there are
//	sumdb inclusion VKEY PROOF ENTRY      a C2SP tlog-proof
//	sumdb consistency VKEY PROOF OLDNOTE  the proof that `prove --consistency` prints
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
}

func fail(format string, args ...interface{}) {
	fmt.Printf(format+"\n", args...)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func hashOf(text string) tlog.Hash {
	var h tlog.Hash
	b, err := base64.StdEncoding.DecodeString(text)
	must(err)
	if len(b) != len(h) {
		fail("a hash of %d bytes", len(b))
	}
	copy(h[:], b)
	return h
}

func openNote(text []byte, vkey string) checkpoint {
	verifier, err := note.NewVerifier(vkey)
	must(err)
	n, err := note.Open(text, note.VerifierList(verifier))
	must(err)
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		fail("not a checkpoint of this log: %q", n.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	return checkpoint{lines[0], size, hashOf(lines[2])}
}

// The hashes that tlog stores, in memory.
type store []tlog.Hash

func (s store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func checkLog(vkey string, paths []string) {
	var stored store
	var size, checked int64
	for _, path := range paths {
		data, err := os.ReadFile(path)
		must(err)
		scanner := bufio.NewScanner(bytes.NewReader(data))
		scanner.Buffer(nil, 1<<17)
		for scanner.Scan() {
			var line struct {
				Type string
				Data struct{ Checkpoint *string }
			}
			must(json.Unmarshal(scanner.Bytes(), &line))
			own := line.Type == "dev.cellos.events.log_segment.v1" ||
				line.Type == "dev.cellos.events.log_checkpoint.v1"
			if !own {
				hashes, err := tlog.StoredHashes(size, scanner.Bytes(), stored)
				must(err)
				stored = append(stored, hashes...)
				size++
			} else if line.Data.Checkpoint != nil {
				c := openNote([]byte(*line.Data.Checkpoint), vkey)
				root, err := tlog.TreeHash(size, stored)
				must(err)
				if c.size != size || c.root != root {
					fail("%s: the checkpoint of %d entries does not match", path, c.size)
				}
				checked++
			}
		}
		must(scanner.Err())
	}
	fmt.Println(checked, "checkpoints of", size, "entries")
}

// The lines before the empty one, and the note after it.
func splitProof(path string) ([]string, []byte) {
	data, err := os.ReadFile(path)
	must(err)
	at := bytes.Index(data, []byte("\n\n"))
	if at < 0 {
		fail("%s: no note", path)
	}
	return strings.Split(string(data[:at]), "\n"), data[at+2:]
}

func hashesOf(lines []string) []tlog.Hash {
	var out []tlog.Hash
	for _, line := range lines {
		out = append(out, hashOf(line))
	}
	return out
}

func numberOf(line, prefix string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(line, prefix), 10, 64)
	must(err)
	return n
}

func main() {
	if len(os.Args) < 4 {
		fail("usage: sumdb log|inclusion|consistency VKEY FILE...")
	}
	vkey, args := os.Args[2], os.Args[3:]
	switch os.Args[1] {
	case "log":
		checkLog(vkey, args)
	case "inclusion":
		lines, text := splitProof(args[0])
		entry, err := os.ReadFile(args[1])
		must(err)
		c := openNote(text, vkey)
		if lines[0] != "c2sp.org/tlog-proof@v1" {
			fail("not a tlog-proof")
		}
		must(tlog.CheckRecord(hashesOf(lines[2:]), c.size, c.root, numberOf(lines[1], "index "),
			tlog.RecordHash(bytes.TrimSuffix(entry, []byte("\n")))))
	case "consistency":
		lines, text := splitProof(args[0])
		kept, err := os.ReadFile(args[1])
		must(err)
		c, old := openNote(text, vkey), openNote(kept, vkey)
		if numberOf(lines[0], "old ") != old.size {
			fail("a proof for another size")
		}
		if old.size == c.size && old.root == c.root {
			return // sumdb has no proof for a tree that did not grow
		}
		must(tlog.CheckTree(hashesOf(lines[1:]), c.size, c.root, old.size, old.root))
	}
}

// A load for crash tests of goleveldb, the LevelDB that is written in Go.
//
//	load write DIR WRITERS PUTS   each of WRITERS goroutines puts PUTS keys, synced, and prints `WRITER NUMBER` after each
//	load time DIR WRITERS PUTS    the same; prints only how many puts there were a second; SYNC=0 does not sync
//	load read DIR                 opens DIR, reads all of it with checksums, and prints every key; fails if it is damaged
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// Small, so that a log is full after some hundred puts: the next begins, and a table is written.
const buffer = 64 << 10

const size = 100

func check(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func options(missing bool) *opt.Options {
	return &opt.Options{WriteBuffer: buffer, ErrorIfMissing: missing}
}

func put(database *leveldb.DB, writer, puts int, tells, syncs bool) {
	value := bytes.Repeat([]byte("v"), size)
	for n := 0; n < puts; n++ {
		line := fmt.Sprintf("%d %d\n", writer, n)
		err := database.Put([]byte(line[:len(line)-1]), value, &opt.WriteOptions{Sync: syncs})
		check("put", err)
		if tells {
			// One write, after the put has returned: this is the acknowledgement.
			_, err = os.Stdout.WriteString(line)
			check("acknowledge", err)
		}
	}
}

func write(dir string, writers, puts int, tells bool) {
	database, err := leveldb.OpenFile(dir, options(false))
	check("open", err)
	syncs := os.Getenv("SYNC") != "0"
	begun := time.Now()
	var all sync.WaitGroup
	for writer := 0; writer < writers; writer++ {
		all.Add(1)
		go func(writer int) {
			defer all.Done()
			put(database, writer, puts, tells, syncs)
		}(writer)
	}
	all.Wait()
	if !tells {
		fmt.Printf("%.0f\n", float64(writers*puts)/time.Since(begun).Seconds())
	}
	check("close", database.Close())
}

func read(dir string) {
	// What crashed before it had made a database has none.
	if _, err := os.Stat(filepath.Join(dir, "CURRENT")); os.IsNotExist(err) {
		return
	}
	database, err := leveldb.OpenFile(dir, options(true))
	check("open", err)
	at := database.NewIterator(nil, &opt.ReadOptions{Strict: opt.StrictAll})
	for at.Next() {
		if len(at.Value()) != size {
			check("read", fmt.Errorf("%s has a value of %d bytes", at.Key(), len(at.Value())))
		}
		fmt.Printf("%s\n", at.Key())
	}
	check("read", at.Error())
	at.Release()
	check("close", database.Close())
}

func main() {
	words := os.Args[1:]
	if len(words) == 2 && words[0] == "read" {
		read(words[1])
		return
	}
	if len(words) == 4 && (words[0] == "write" || words[0] == "time") {
		writers, _ := strconv.Atoi(words[2])
		puts, _ := strconv.Atoi(words[3])
		if writers > 0 && puts > 0 {
			write(words[1], writers, puts, words[0] == "write")
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: load write|time DIR WRITERS PUTS, load read DIR")
	os.Exit(2)
}

//go:build unix

package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

const crashDirVariable = "AETHER_TEST_CRASH_DIR"

// crashChild adds nodes one by one, tells each that is on disk, and never ends by itself.
func crashChild(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	for i := 1; ; i++ {
		err := s.Update(func(tx *Tx) error {
			prefix := netip.MustParsePrefix("10.0.0.0/8")
			at, err := tx.Cursor(prefix)
			if err != nil {
				return err
			}
			id := identity.ID{1, byte(at >> 16), byte(at >> 8), byte(at)}
			address := netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)})
			node := Node{ID: id, Name: fmt.Sprint("n", at), Addresses: []netip.Addr{address}}
			return errors.Join(tx.SetCursor(prefix, at+1), tx.PutNode(node))
		})
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("done")
	}
}

// A process killed in the middle of its writing loses nothing that it was told is on disk, and leaves nothing
// half done; while it lives it keeps others out.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	confirmed := uint64(0)
	for round := range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashDirVariable+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 20 + 7*round {
			if !lines.Scan() || lines.Text() != "done" {
				t.Fatalf("child says %q, %v", lines.Text(), lines.Err())
			}
			confirmed++
		}
		if _, err := Open(dir); !errors.Is(err, ErrInUse) {
			t.Errorf("state of a living process: %v", err)
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		confirmed += uint64(strings.Count(string(rest), "done\n"))
		// What the scanner had read ahead is confirmed too; the cursor may only be further than what is counted.
		if err := child.Wait(); err == nil {
			t.Fatal("child ended by itself")
		}
		s := reopen(t, dir)
		confirmed = assertWhole(t, s, confirmed)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func assertWhole(t *testing.T, s *Store, confirmed uint64) (at uint64) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		cursor, err := tx.Cursor(netip.MustParsePrefix("10.0.0.0/8"))
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes()
		if err != nil {
			return err
		}
		if cursor < confirmed || uint64(len(nodes)) != cursor {
			t.Errorf("%d were confirmed, the cursor says %d, %d are there", confirmed, cursor, len(nodes))
		}
		for _, n := range nodes {
			byName, e1 := tx.NodeByName(n.Name)
			byAddress, e2 := tx.NodeByAddress(n.Addresses[0])
			if e1 != nil || e2 != nil || byName.ID != n.ID || byAddress.ID != n.ID {
				t.Errorf("%s is not in the indexes: %v, %v", n.Name, e1, e2)
			}
		}
		at = cursor
		for err := range tx.bolt.Check() {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateKey(dir, zeros{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", fileName, keyFileName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		for path, load := range map[string]func() error{
			filepath.Join(dir, fileName): func() error { _, err := Open(dir); return err },
			KeyPath(dir):                 func() error { _, err := LoadKey(dir); return err },
		} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			err := load()
			if !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("mode %o: %v", mode, err)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, ok := strings.CutSuffix(path, keyFileName); ok {
				if err := load(); err != nil {
					t.Errorf("mode 600: %v", err)
				}
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

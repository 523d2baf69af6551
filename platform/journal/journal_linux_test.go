package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
)

func scope(n int) Scope { return Scope{Boot: "boot", Netns: fmt.Sprintf("cookie:%d", n)} }

func open(t *testing.T, dir string, s Scope) *Journal {
	t.Helper()
	j, err := OpenIn(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func put(t *testing.T, j *Journal, kind string, body any) ID {
	t.Helper()
	got, err := j.Record(Change{Kind: kind, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func closeIt(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func bodies(j *Journal) string {
	var out []string
	for _, r := range j.Pending() {
		out = append(out, string(r.Body))
	}
	return strings.Join(out, " ")
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(1))
	put(t, j, "a", 1)
	second := put(t, j, "a", 2)
	put(t, j, "a", 3)
	if err := j.Forget(second, 999); err != nil {
		t.Fatal(err)
	}
	closeIt(t, j)
	j = open(t, dir, scope(1))
	if got := bodies(j); got != "1 3" {
		t.Fatalf("pending %q after reopening", got)
	}
	if id := put(t, j, "a", 4); id != 4 {
		t.Errorf("next id %d, want 4", id)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(1))
	put(t, j, "a", 1)
	if _, err := OpenIn(dir, scope(1)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	// A rewrite gives the name to another file; the lock must go with it.
	if err := j.rewriteLocked(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIn(dir, scope(1)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open after a rewrite: %v", err)
	}
	closeIt(t, j)
	if got := bodies(open(t, dir, scope(1))); got != "1" {
		t.Fatalf("pending %q", got)
	}
}

func TestUndoRunsBackwardsAndReports(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(2))
	put(t, j, "a", "other namespace")
	closeIt(t, j)
	j = open(t, dir, scope(1))
	for i := range 4 {
		put(t, j, "a", i)
	}
	put(t, j, "nobody knows", 9)
	var order []string
	broken := errors.New("still there")
	report := j.Undo(Registry{"a": func(r Record) ([]Left, error) {
		order = append(order, string(r.Body))
		switch string(r.Body) {
		case "1":
			return nil, broken
		case "2":
			return []Left{{Thing: "t", Set: "s", Found: "f"}}, nil
		}
		return nil, nil
	}})
	if got := strings.Join(order, " "); got != "3 2 1 0" {
		t.Errorf("order %s", got)
	}
	if report.Undone != 3 || len(report.Left) != 1 || len(report.Failed) != 2 || len(report.Elsewhere) != 1 {
		t.Errorf("report %+v", report)
	}
	if err := report.Err(); !errors.Is(err, broken) || !errors.Is(err, ErrUnknownKind) {
		t.Errorf("error %v", err)
	}
	if got := bodies(j); got != `"other namespace" 1 9` {
		t.Errorf("still pending: %s", got)
	}
}

func TestOtherBootIsVoid(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Scope{Boot: "older", Netns: "cookie:1"})
	put(t, j, "a", 1)
	put(t, j, "a", 2)
	closeIt(t, j)
	j = open(t, dir, scope(1))
	report := j.Undo(Registry{"a": func(Record) ([]Left, error) {
		t.Error("a record of another boot was undone")
		return nil, nil
	}})
	if report.Void != 2 || len(j.Pending()) != 0 {
		t.Errorf("report %+v, pending %v", report, j.Pending())
	}
}

func TestElsewhereIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(2))
	changes := make([]Change, MaxElsewhere+7)
	for i := range changes {
		changes[i] = Change{Kind: "a", Body: i}
	}
	if _, err := j.Record(changes...); err != nil {
		t.Fatal(err)
	}
	closeIt(t, j)
	j = open(t, dir, scope(1))
	report := j.Undo(nil)
	if report.Evicted != 7 || len(report.Elsewhere) != MaxElsewhere || string(report.Elsewhere[0].Body) != "7" {
		t.Errorf("evicted %d, elsewhere %d", report.Evicted, len(report.Elsewhere))
	}
}

func TestFileDoesNotGrowWithForgottenRecords(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(1))
	put(t, j, "keep", 0)
	body := strings.Repeat("x", 8<<10)
	for range 200 {
		if err := j.Forget(put(t, j, "a", body)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 2*compactBytes {
		t.Errorf("file has %d bytes for one pending record", info.Size())
	}
	closeIt(t, j)
	if got := bodies(open(t, dir, scope(1))); got != "0" {
		t.Errorf("pending %q", got)
	}
}

func TestPendingIsBounded(t *testing.T) {
	j := open(t, t.TempDir(), scope(1))
	changes := make([]Change, MaxPending)
	for i := range changes {
		changes[i] = Change{Kind: "a", Body: i}
	}
	if _, err := j.Record(changes...); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Record(Change{Kind: "a", Body: 1}); !errors.Is(err, ErrFull) {
		t.Errorf("record beyond the bound: %v", err)
	}
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, []byte("my shopping list, version 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIn(dir, scope(1)); !errors.Is(err, ErrFormat) {
		t.Fatalf("open: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "my shopping list, version 3\n" {
		t.Errorf("file is now %q, %v", data, err)
	}
}

func TestTornTailIsCutAndWritingGoesOn(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, scope(1))
	put(t, j, "a", 1)
	closeIt(t, j)
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, "+ 0123abcd {\"id\":2,\"ki"...), 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, scope(1))
	put(t, j, "a", 2)
	closeIt(t, j)
	j = open(t, dir, scope(1))
	if got := bodies(j); got != "1 2" || j.opened.damaged != 0 {
		t.Errorf("pending %q, damaged %d", got, j.opened.damaged)
	}
}

func TestClosedJournal(t *testing.T) {
	j := open(t, t.TempDir(), scope(1))
	id := put(t, j, "a", 1)
	closeIt(t, j)
	if _, err := j.Record(Change{Kind: "a", Body: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("record: %v", err)
	}
	if err := j.Forget(id); !errors.Is(err, ErrClosed) {
		t.Errorf("forget: %v", err)
	}
}

// TestFullDisk fills a small file system: recording must fail and leave a whole file, what is recorded must
// still be undone and forgotten, also after reopening.
func TestFullDisk(t *testing.T) {
	dir := smallFileSystem(t)
	j := open(t, dir, scope(1))
	body := strings.Repeat("x", 1000)
	recorded := 0
	var err error
	for range 10_000 {
		if _, err = j.Record(Change{Kind: "a", Body: body}); err != nil {
			break
		}
		recorded++
	}
	if !errors.Is(err, unix.ENOSPC) || recorded == 0 {
		t.Fatalf("after %d records: %v", recorded, err)
	}
	if _, err := j.Record(Change{Kind: "a", Body: body}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("second record on a full disk: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := parse(data); err != nil || p.wholeBytes != int64(len(data)) || len(p.entries) != recorded {
		t.Errorf("file of %d bytes: %d whole, %d records, %v", len(data), p.wholeBytes, len(p.entries), err)
	}
	fill(t, filepath.Join(dir, "ballast"))
	if err := j.Forget(1); err != nil {
		t.Errorf("forget on a full disk: %v", err)
	}
	closeIt(t, j)
	j = open(t, dir, scope(1))
	if len(j.Pending()) != recorded-1 {
		t.Errorf("%d pending, want %d", len(j.Pending()), recorded-1)
	}
	undone := 0
	report := j.Undo(Registry{"a": func(Record) ([]Left, error) { undone++; return nil, nil }})
	if err := report.Err(); err != nil || undone != recorded-1 {
		t.Errorf("undid %d: %v", undone, err)
	}
}

// fill writes until nothing fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		return // no room for a name either
	}
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// smallFileSystem mounts a tmpfs of 64 KiB that only this test's thread sees. The thread is not given back.
func smallFileSystem(t *testing.T) string {
	t.Helper()
	hosttest.Enter(t) // for its check of capabilities
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestCurrentScopeTellsNamespacesApart(t *testing.T) {
	outside, err := CurrentScope()
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Enter(t)
	inside, err := CurrentScope()
	if err != nil {
		t.Fatal(err)
	}
	if inside.Boot == "" || inside.Boot != outside.Boot || inside.Netns == outside.Netns {
		t.Errorf("outside %+v, inside %+v", outside, inside)
	}
	again, err := CurrentScope()
	if err != nil || again != inside {
		t.Errorf("second time %+v, %v", again, err)
	}
}

func TestBodyRoundTrip(t *testing.T) {
	type body struct{ Text string }
	j := open(t, t.TempDir(), scope(1))
	want := body{Text: "line\nwith <html> & \u2028 \x00"}
	put(t, j, "a", want)
	var got body
	if err := json.Unmarshal(j.Pending()[0].Body, &got); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if !slices.Equal([]string{j.Pending()[0].Kind}, []string{"a"}) {
		t.Errorf("kind %q", j.Pending()[0].Kind)
	}
}

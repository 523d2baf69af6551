package sysctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/platform/journal"
	"github.com/aethertunnel/aethertunnel/platform/journal/hosttest"
	"github.com/aethertunnel/aethertunnel/platform/journal/journaltest"
)

// helperEnv makes TestHelperProcess a daemon that holds a parameter until it is killed: "dir stateDir".
const helperEnv = "AETHERTUNNEL_SYSCTL_HELPER"

// TestHelperProcess tests nothing by itself; TestKilledHolder runs it as a process of its own and kills it.
func TestHelperProcess(t *testing.T) {
	if args := strings.Fields(os.Getenv(helperEnv)); len(args) == 2 {
		if err := holdForever(args[0], args[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func holdForever(dir, stateDir string) error {
	j, err := journal.Open(stateDir)
	if err != nil {
		return err
	}
	h, err := New(Config{Dir: dir, StateDir: stateDir, Scope: j.Scope(), Journal: j})
	if err != nil {
		return err
	}
	if err := h.Hold(Setting{Key: SrcValidMark, Value: "1"}); err != nil {
		return err
	}
	_, err = os.Stdout.WriteString("holding\n")
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// instance is one daemon of a test.
type instance struct {
	t     *testing.T
	state string
	j     *journal.Journal
	h     *Holds
}

func start(t *testing.T, dir, state string) *instance {
	t.Helper()
	j := journaltest.Open(t, state)
	h, err := New(Config{Dir: dir, StateDir: state, Scope: j.Scope(), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	return &instance{t: t, state: state, j: j, h: h}
}

func (i *instance) hold(key, value string) {
	i.t.Helper()
	if err := i.h.Hold(Setting{Key: key, Value: value}); err != nil {
		i.t.Fatal(err)
	}
}

// stop undoes the journal, as a daemon does at its end, and returns what was left.
func (i *instance) stop() []journal.Left {
	i.t.Helper()
	return journaltest.Undo(i.t, i.j, Undoers())
}

func noHolderFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "sysctl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func expect(t *testing.T, key, want string) {
	t.Helper()
	if got := hosttest.ReadSysctl(t, key); got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

func TestLastHolderOutRestoresInBothOrders(t *testing.T) {
	for _, firstOut := range []int{0, 1} {
		hosttest.Enter(t)
		before := hosttest.Listing(t)
		dir := t.TempDir()
		both := []*instance{start(t, dir, filepath.Join(dir, "a")), start(t, dir, filepath.Join(dir, "b"))}
		both[0].hold(SrcValidMark, "1")
		both[1].hold(SrcValidMark, "1")
		both[1].hold(SrcValidMark, "1")
		if left := both[firstOut].stop(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		expect(t, SrcValidMark, "1")
		if left := both[1-firstOut].stop(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		hosttest.Same(t, before, hosttest.Listing(t), fmt.Sprintf("instance %d out first", firstOut))
		noHolderFiles(t, dir)
	}
}

func TestReleaseRestoresAndForgets(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	a.hold(SrcValidMark, "1")
	if got := a.h.Keys(); !slices.Equal(got, []string{SrcValidMark}) {
		t.Errorf("keys %v", got)
	}
	left, err := a.h.Release(SrcValidMark)
	if err != nil || len(left) > 0 {
		t.Fatalf("release: %v, %v", left, err)
	}
	expect(t, SrcValidMark, "0")
	if n := len(a.j.Pending()); n != 0 {
		t.Errorf("%d records pending", n)
	}
	if _, err := a.h.Release(SrcValidMark); err != nil {
		t.Errorf("second release: %v", err)
	}
}

func TestValueOfSomebodyElseIsLeftAndReported(t *testing.T) {
	const key = "net/ipv4/conf/all/rp_filter"
	hosttest.Enter(t)
	dir := t.TempDir()
	hosttest.Sysctl(t, key, "0")
	a := start(t, dir, filepath.Join(dir, "a"))
	a.hold(key, "1")
	hosttest.Sysctl(t, key, "2")
	left := a.stop()
	want := journal.Left{Thing: "sysctl " + key, Set: "1", Found: "2"}
	if len(left) != 1 || left[0] != want {
		t.Errorf("left %v, want %v", left, want)
	}
	expect(t, key, "2")
	noHolderFiles(t, dir)
}

// TestValueSetByHandWhileHeldIsWhatIsRestored: the operator chose 0 while the first daemon held 1; the second
// one sets 1 again, and what comes back at the end is the operator's choice, not the value from before.
func TestValueSetByHandWhileHeldIsWhatIsRestored(t *testing.T) {
	const key = "net/ipv4/conf/all/rp_filter"
	hosttest.Enter(t)
	dir := t.TempDir()
	hosttest.Sysctl(t, key, "2")
	a, b := start(t, dir, filepath.Join(dir, "a")), start(t, dir, filepath.Join(dir, "b"))
	a.hold(key, "1")
	hosttest.Sysctl(t, key, "0")
	b.hold(key, "1")
	expect(t, key, "1")
	a.stop()
	b.stop()
	expect(t, key, "0")
}

func TestConflictingValuesAreRefused(t *testing.T) {
	const key = "net/ipv4/conf/all/rp_filter"
	hosttest.Enter(t)
	dir := t.TempDir()
	hosttest.Sysctl(t, key, "0")
	a, b := start(t, dir, filepath.Join(dir, "a")), start(t, dir, filepath.Join(dir, "b"))
	a.hold(key, "1")
	var conflict *ConflictError
	if err := b.h.Hold(Setting{Key: key, Value: "2"}); !errors.As(err, &conflict) || conflict.Held != "1" {
		t.Fatalf("conflicting hold: %v", err)
	}
	expect(t, key, "1")
	b.stop()
	expect(t, key, "1")
	a.stop()
	expect(t, key, "0")
}

func TestMissingParameter(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	key := InterfaceKey("ipv4", "nosuch0", "forwarding")
	if err := a.h.Hold(Setting{Key: key, Value: "1"}); !errors.Is(err, ErrNoKey) {
		t.Errorf("hold: %v", err)
	}
	if n := len(a.j.Pending()); n != 0 {
		t.Errorf("%d records for a parameter that is not there", n)
	}
}

func TestInterfaceGoneBeforeRelease(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	tun := hosttest.TUN(t, "tun7")
	a.hold(InterfaceKey("ipv4", "tun7", "forwarding"), "1")
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	if left := a.stop(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	noHolderFiles(t, dir)
}

func TestUnsafeDirectoryIsRefused(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sysctl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "sysctl"), 0o777); err != nil {
		t.Fatal(err)
	}
	a := start(t, dir, filepath.Join(dir, "a"))
	if err := a.h.Hold(Setting{Key: SrcValidMark, Value: "1"}); !errors.Is(err, ErrDir) {
		t.Errorf("hold: %v", err)
	}
	expect(t, SrcValidMark, "0")
}

func TestLostHolderFileIsReported(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	a.hold(SrcValidMark, "1")
	if err := os.RemoveAll(filepath.Join(dir, "sysctl")); err != nil {
		t.Fatal(err)
	}
	left := a.stop()
	if len(left) != 1 || left[0].Thing != "sysctl "+SrcValidMark {
		t.Errorf("left %v", left)
	}
	expect(t, SrcValidMark, "1")
}

// TestSpreadsAreRestored holds net/ipv6/conf/all/forwarding, which overwrites the switch of every interface.
func TestSpreadsAreRestored(t *testing.T) {
	hosttest.Enter(t)
	for _, name := range []string{"on", "off", "by-hand"} {
		hosttest.Link(t, name, name+"-p")
	}
	hosttest.Sysctl(t, "net/ipv6/conf/on/forwarding", "1")
	before := hosttest.Listing(t)
	s := Setting{Key: InterfaceKey("ipv6", "all", "forwarding"), Value: "1"}
	for _, name := range []string{"default", "lo", "on", "on-p", "off", "off-p", "by-hand", "by-hand-p"} {
		s.Spreads = append(s.Spreads, InterfaceKey("ipv6", name, "forwarding"))
	}
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	if err := a.h.Hold(s); err != nil {
		t.Fatal(err)
	}
	expect(t, "net/ipv6/conf/off/forwarding", "1")
	if left := a.stop(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	hosttest.Same(t, before, hosttest.Listing(t), "spread undone")

	a = start(t, dir, filepath.Join(dir, "a"))
	hosttest.Sysctl(t, "net/ipv6/conf/by-hand/forwarding", "1")
	if err := a.h.Hold(s); err != nil {
		t.Fatal(err)
	}
	hosttest.Sysctl(t, "net/ipv6/conf/by-hand/forwarding", "0")
	left := a.stop()
	if len(left) != 1 || left[0].Thing != "sysctl net/ipv6/conf/by-hand/forwarding" {
		t.Errorf("left %v", left)
	}
	expect(t, "net/ipv6/conf/by-hand/forwarding", "0")
	expect(t, "net/ipv6/conf/on/forwarding", "1")
	expect(t, "net/ipv6/conf/off/forwarding", "0")
}

func TestCrashAroundTheRecord(t *testing.T) {
	for _, before := range []bool{true, false} {
		hosttest.Enter(t)
		listing := hosttest.Listing(t)
		dir := t.TempDir()
		a := start(t, dir, filepath.Join(dir, "a"))
		j := &journaltest.Failing{Journal: a.j, FailAt: 1, After: !before}
		h, err := New(Config{Dir: dir, StateDir: a.state, Scope: a.j.Scope(), Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Hold(Setting{Key: SrcValidMark, Value: "1"}); !errors.Is(err, journaltest.ErrCrash) {
			t.Fatalf("hold: %v", err)
		}
		if left := a.stop(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		hosttest.Same(t, listing, hosttest.Listing(t), "crash around the record")
		noHolderFiles(t, dir)
	}
}

// TestCrashBeforeTheWrite: the holder file is there, the parameter was not written yet.
func TestCrashBeforeTheWrite(t *testing.T) {
	hosttest.Enter(t)
	dir := t.TempDir()
	a := start(t, dir, filepath.Join(dir, "a"))
	a.hold(SrcValidMark, "1")
	hosttest.Sysctl(t, SrcValidMark, "0")
	if left := a.stop(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	expect(t, SrcValidMark, "0")
	noHolderFiles(t, dir)
}

// TestKilledHolder kills a real process that holds a parameter. While its journal is not undone it still
// counts; its own next start takes it off the list, whoever else holds.
func TestKilledHolder(t *testing.T) {
	for _, survivor := range []bool{false, true} {
		hosttest.Enter(t)
		before := hosttest.Listing(t)
		dir := t.TempDir()
		state := filepath.Join(dir, "killed")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		killHolder(t, dir, state)
		expect(t, SrcValidMark, "1")

		other := start(t, dir, filepath.Join(dir, "other"))
		other.hold(SrcValidMark, "1")
		if !survivor {
			other.stop()
			expect(t, SrcValidMark, "1")
		}
		if left := start(t, dir, state).stop(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		if survivor {
			expect(t, SrcValidMark, "1")
			other.stop()
		}
		hosttest.Same(t, before, hosttest.Listing(t), "after the killed daemon's next start")
		noHolderFiles(t, dir)
	}
}

// killHolder runs the helper until it holds the parameter and kills it with SIGKILL.
func killHolder(t *testing.T, dir, state string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), helperEnv+"="+dir+" "+state)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("helper ended with %v", err)
	}
	if err := in.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if readErr != nil || line != "holding\n" {
		t.Fatalf("helper said %q, %v", line, readErr)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"key":"net/ipv4/conf/all/src_valid_mark","set":"1","before":"0",` +
		`"holders":[{"state_dir":"/x","pid":1}]}`))
	f.Add([]byte(`{"key":"kernel/core_pattern","set":"|sh","before":"core"}`))
	f.Add([]byte(`{"key":"net/a","set":"1","before":"0","spreads":{"../x":"1"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEntry(data)
		if err != nil {
			return
		}
		if !validKey(e.Key) {
			t.Fatalf("key %q", e.Key)
		}
		for key := range e.Spreads {
			if !validKey(key) {
				t.Fatalf("spread %q", key)
			}
		}
	})
}

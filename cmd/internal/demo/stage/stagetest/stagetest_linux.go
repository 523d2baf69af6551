package stagetest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

// program is the package of the program under test.
const program = "github.com/aethertunnel/aethertunnel/cmd/aetherd"

// Build builds aetherd where every user may run it. On a system that does not let this user have namespaces and a TUN
// device the test is skipped.
func Build(tb testing.TB) string {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	err = stage.Try("demo", self, "-test.run=^$")
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tb.Skipf("the system has just refused what this test needs: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	// t.TempDir makes directories for this user alone; the test may want to be somebody else.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	path := filepath.Join(dir, "aetherd")
	if out, err := exec.Command("go", "build", "-o", path, program).CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// Outcome is how a program ended.
type Outcome struct {
	Stdout, Stderr string
	ExitCode       int
}

// Nobody is the number of a user without any rights (nobody on most systems; the number is what matters).
const Nobody = 65534

// Run runs a command to its end and makes sure that nothing of it is left. As a user other than the current one, which
// takes root; 0 is the current one.
func Run(tb testing.TB, user uint32, path string, args ...string) Outcome {
	tb.Helper()
	c := exec.Command(path, args...)
	if user != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	c.Dir = filepath.Dir(path)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	NothingLeft(tb, path)
	return Outcome{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: c.ProcessState.ExitCode()}
}

// NothingLeft fails the test if a process of the program is still there. The path must be that of one test alone.
func NothingLeft(tb testing.TB, path string) {
	tb.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		tb.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ESRCH) {
			continue // ended meanwhile, or somebody else's
		}
		if err != nil {
			tb.Fatal(err)
		}
		if strings.TrimSuffix(target, " (deleted)") == path {
			tb.Errorf("%s is still running", filepath.Dir(link))
		}
	}
}

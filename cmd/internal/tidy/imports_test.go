package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/aethertunnel/aethertunnel/"

// goPackage is the part of `go list -json` that the tests look at.
type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Doc        string
	GoFiles    []string
	Dir        string
}

func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,Doc,GoFiles,Dir", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 10 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	return packages
}

// rule says what packages under a path must not depend on, directly or through others, and why.
type rule struct {
	under, never, why string
}

var rules = []rule{
	{"dataplane", module + "control", "the dataplane gets snapshots and never asks control"},
	{"dataplane", module + "platform", "the dataplane does not change the host"},
	{"dataplane", module + "netstack", "the dataplane knows no stack"},
	{"dataplane", module + "gamemode", "gamemode fills the dataplane's interface, not the other way round"},
	{"dataplane", "github.com/BurntSushi/toml", "the dataplane knows no configuration format"},
	{"tun", module, "the NIC stands alone"},
	{"crypto", module + "control", "crypto is below everything"},
	{"crypto", module + "dataplane", "crypto is below everything"},
	{"crypto", module + "platform", "crypto is below everything"},
	{"platform", module + "control", "the platform makes plans real and does not decide"},
	{"platform", module + "dataplane", "the platform never sees packets"},
	{"control", module + "cmd", "cmd is on top"},
	{"control", module + "platform", "control reaches the host through an interface"},
	{"", "github.com/quic-go/connect-ip-go", "the reference implementation is for tests"},
}

// TestImportRules holds the dependency rules of the architecture over the whole dependency set.
func TestImportRules(t *testing.T) {
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if r.under != "" && path != r.under && !strings.HasPrefix(path, r.under+"/") {
				continue
			}
			for _, dep := range p.Deps {
				if r.matches(p.ImportPath, dep) {
					t.Errorf("%s depends on %s: %s", path, dep, r.why)
				}
			}
		}
	}
}

func (r rule) matches(from, dep string) bool {
	if r.never == module { // anything of ours outside the package's own tree
		return strings.HasPrefix(dep, module) && !strings.HasPrefix(dep, from)
	}
	return dep == r.never || strings.HasPrefix(dep, r.never+"/")
}

// pure packages do no I/O and read no clock: time and randomness are arguments.
var pure = []string{
	"dataplane/packet", "dataplane/route", "dataplane/icmp", "dataplane/lane", "dataplane/path", "dataplane/sched", "crypto/token", "crypto/aead",
	"crypto/kem", "crypto/keyschedule",
}

// TestPurePackages keeps clocks, files and sockets out of the packages that promise to have none.
func TestPurePackages(t *testing.T) {
	forbidden := []string{"os", "net", "syscall", "golang.org/x/sys/unix", "os/exec"}
	seen := 0
	for _, p := range list(t) {
		if !slices.Contains(pure, strings.TrimPrefix(p.ImportPath, module)) {
			continue
		}
		seen++
		for _, i := range p.Imports {
			if slices.Contains(forbidden, i) && !(i == "net" && strings.HasSuffix(p.ImportPath, "token")) {
				t.Errorf("%s imports %s but promises to do no I/O", p.ImportPath, i)
			}
		}
	}
	if seen != len(pure) {
		t.Errorf("found %d of %d pure packages: the list is out of date", seen, len(pure))
	}
}

// TestPackagesAreDocumented wants one comment for every package.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

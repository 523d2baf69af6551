package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything that is wrong with a start is one clear line, a failure, and no change to the machine.
func TestBadInputIsOneLineAndChangesNothing(t *testing.T) {
	t.Parallel()
	g, _ := twoMachines(t)
	file := func(name, content string) string {
		path := filepath.Join(g.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	misspelt := file("misspelt.toml", "[node]\nname = \"hub\"\n\n[gateway]\nadvertize = [\"a.example:443\"]\n")
	overlapping := file("both.toml",
		"[gateway]\nnetwork = [\"10.7.0.0/16\"]\n[routes]\nadvertise = [\"10.7.3.0/24\"]\n")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"misspelt key": {
			[]string{"--config", misspelt},
			[]string{"misspelt.toml:5", "advertize", "advertise"},
		},
		"unknown section": {
			[]string{"--config", file("section.toml", "[nodes]\nname = \"hub\"\n")},
			[]string{"section.toml:1", "nodes", "node"},
		},
		"wrong type": {
			[]string{"--config", file("type.toml", "[node]\nmtu = \"large\"\n")},
			[]string{"type.toml:2", "mtu"},
		},
		"not TOML": {
			[]string{"--config", file("syntax.toml", "[node\nname=1\n")},
			[]string{"syntax.toml:", "is not valid TOML"},
		},
		"contradiction": {
			[]string{"--config", overlapping},
			[]string{"both.toml:4", "10.7.3.0/24", "10.7.0.0/16"},
		},
		"no such file": {
			[]string{"--config", filepath.Join(g.dir, "none.toml")}, []string{"none.toml", "no such file"},
		},
		"unreadable file":      {[]string{"--config", g.dir}, []string{g.dir}},
		"bad flag value":       {[]string{"--network", "10.7.0.0"}, []string{"--network", "10.7.0.0"}},
		"bits behind a prefix": {[]string{"--network", "10.7.0.9/24"}, []string{"--network", "10.7.0.0/24"}},
		"unknown flag":         {[]string{"--netwrok", "10.7.0.0/24"}, []string{"--netwrok"}},
		"listen elsewhere":     {[]string{"--listen", "203.0.113.9:443"}, []string{"203.0.113.9", "--listen"}},
		"long device name":     {[]string{"--tun", "a-very-long-device"}, []string{"--tun", "a-very-long-device", "15"}},
		"device in use":        {[]string{"--tun", "eth0", "--network", testNetwork}, []string{"eth0", "--tun NAME"}},
		"network in use": {
			[]string{"--network", "192.0.2.0/24"}, []string{"192.0.2.0/24"},
		},
		"a member's invite on a bad line": {[]string{"aether://nowhere"}, []string{"invite"}},
	} {
		t.Run(name, func(t *testing.T) {
			state := g.state(filepath.Base(t.Name()))
			args := append([]string{"up", "--state", state, "--port-mapping", "off"}, c.args...)
			g.aetherd(args...).refused(t, c.want...)
			g.mustBeUntouched("after " + name)
		})
	}
	// The same file, only checked.
	g.aetherd("config", "check", misspelt).refused(t, "misspelt.toml:5", "advertise")
	// Verbs without a daemon.
	for _, verb := range [][]string{{"status"}, {"invite"}, {"nodes"}, {"routes"}, {"down"}} {
		g.aetherd(append(verb, "--state", g.state("nobody"))...).refused(t, g.state("nobody"))
	}
}

// Two daemons cannot share a port, nor a state directory; the running one does not suffer.
func TestASecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	gateway, member := tunnel(t)
	g, l := gateway.machine, member.machine
	g.aetherd("up", "--state", gateway.state).refused(t, "running already", gateway.state)
	l.aetherd("up", "--state", member.state).refused(t, "running already", member.state)
	g.aetherd("up", "--state", g.state("other"), "--network", "10.78.0.0/24").refused(t, "443", "--listen")
	// Nor a network: another interface of this machine has it.
	overlapping := g.aetherd("up", "--state", g.state("third"), "--network", "10.77.0.0/25", "--listen", ":8443")
	overlapping.refused(t, "10.77.0.0")
	l.reaches(gateway.address4(), gateway.address6())
	// What belongs to the member's role is refused on the gateway's, and the other way round.
	o := l.aetherd("up", "--state", l.state("listener"), "--listen", ":443", gateway.invite())
	o.refused(t, "--listen", "gateway")
	l.aetherd("invite", "--state", member.state).refused(t, "ask the gateway")
}

// A port that another program has.
func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	g, _ := twoMachines(t)
	conn, err := g.ListenUDP("[::]:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g.aetherd("up", "--state", g.state("gateway"), "--network", testNetwork).refused(t, "443", "--listen")
	g.mustBeUntouched("after a refused start")
}

// A member whose machine is connected to the network's prefix elsewhere.
func TestAPrefixThatIsConnectedElsewhere(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	other := newMachine(t, "office")
	cable(l, "eth1", other, "eth0", []string{"10.77.0.200/25"}, []string{"10.77.0.201/25"})
	third := otherMachine(g)
	gateway := gatewayUp(g)
	o := l.aetherd("up", "--state", l.state("laptop"), gateway.invite())
	o.refused(t, "10.77.0.0/24", "eth1", "--network PREFIX")
	l.mustBeUntouched("after a refused start")

	// Networks that come later than ours: at the gateway, and at a member that has joined.
	member := third.up("third", "--name", "third", gateway.invite()).connected()
	member.stop()
	gateway.stop()
	refused := func(m *machine, state string) {
		t.Helper()
		m.address("eth0", "10.77.0.201/25")
		m.aetherd("up", "--state", m.state(state)).refused(t, "10.77.0.0/24", "eth0", "--network PREFIX")
		if err := m.Interface("eth0").RemoveAddress("10.77.0.201/25"); err != nil {
			t.Fatal(err)
		}
		m.mustBeUntouched("after a refused start")
	}
	refused(g, "gateway")
	g.up("gateway", "--port-mapping", "off").listening()
	refused(third, "third")
}

// A process that may not administer the network, and a machine without a TUN driver.
func TestWhatNeedsPermission(t *testing.T) {
	t.Parallel()
	g, _ := twoMachines(t)
	args := []string{"up", "--state", g.state("gateway"), "--network", testNetwork, "--port-mapping", "off"}
	g.aetherdWith(func(c *exec.Cmd) {
		c.Path = "/proc/self/exe"
		c.Env = append(os.Environ(), withoutAdmin+"=1")
	}, args...).refused(t, "sudo")
	g.mustBeUntouched("after a start without permission")
	g.aetherdWith(func(c *exec.Cmd) {
		c.Path = "/proc/self/exe"
		c.Env = append(os.Environ(), withoutTUN+"=1")
	}, args...).refused(t, "TUN", "modprobe tun")
	g.mustBeUntouched("after a start without TUN driver")
}

// A disk that is full at any moment of a start: a clear line, and nothing is left.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	invite := gateway.invite("--uses", "50")
	g2 := otherMachine(g)
	seen := map[int]bool{}
	for _, pages := range []int{1, 4, 8, 9, 10, 11, 12, 24} {
		for _, c := range []struct {
			machine *machine
			args    []string
		}{
			{l, []string{"--name", fmt.Sprintf("p%d", pages), invite}},
			{g2, []string{"--network", "10.79.0.0/24", "--port-mapping", "off"}},
		} {
			state := filepath.Join(c.machine.dir, fmt.Sprintf("disk%d", pages))
			if err := os.Mkdir(state, 0o700); err != nil {
				t.Fatal(err)
			}
			size := fmt.Sprintf("size=%d,mode=700", pages*os.Getpagesize())
			if err := unix.Mount("small", state, "tmpfs", 0, size); err != nil {
				t.Fatal(err)
			}
			code := startOnSmallDisk(t, c.machine, state, c.args)
			seen[code] = true
			if err := unix.Unmount(state, 0); err != nil {
				t.Error(err)
			}
		}
	}
	if !seen[0] || !seen[1] {
		t.Errorf("the sizes show only one outcome: %v", seen)
	}
}

// startOnSmallDisk starts a daemon that either comes up, and is stopped, or fails with a line about the disk.
func startOnSmallDisk(t *testing.T, m *machine, state string, args []string) int {
	t.Helper()
	d := m.start(filepath.Base(state), args...)
	for {
		changed := d.output.watch()
		if len(d.output.lines("packets pass")) > 0 || len(d.output.lines("listening  ")) > 0 {
			d.stop()
			m.mustBeUntouched("after a daemon on a small disk")
			return 0
		}
		select {
		case <-changed:
		case <-d.ended:
			d.refused("no space left")
			m.mustBeUntouched("after a daemon on a full disk, " + state)
			return 1
		case <-within(t, patience).Done():
			t.Fatal("neither up nor failed")
		}
	}
}

package e2e

import "testing"

// A machine that is the gateway of one network and a member of another: both work, share what they change,
// and may leave in either order.
func TestTwoDaemonsOnOneMachine(t *testing.T) {
	t.Parallel()
	for _, memberFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "member leaves first", false: "gateway crashes first"}[memberFirst], func(t *testing.T) {
			t.Parallel()
			g, middle := twoMachines(t)
			far := newMachine(t, "far")
			cable(middle, "eth1", far, "eth0", []string{"198.51.100.1/24"}, []string{"198.51.100.2/24"})
			first := gatewayUp(g)
			member := middle.up("member", "--name", "middle", first.invite()).connected()
			second := networkUp(middle, "gateway", "10.78.0.0/24,fd78::/64", "--advertise-routes", "198.51.100.0/24")
			leaf := far.up("leaf", "--name", "leaf", second.invite()).connected()

			a, b := member.status(), second.status()
			if a.Host.Table == b.Host.Table || a.Host.Mark == b.Host.Mark || a.Host.Priority == b.Host.Priority ||
				a.Device.Name == b.Device.Name {
				t.Errorf("two daemons share what must be their own: %+v %+v, %+v %+v", a.Host, a.Device, b.Host, b.Device)
			}
			reachBoth := func() {
				middle.reaches(first.address4(), first.address6(), leaf.address4(), leaf.address6())
				far.reaches(second.address4(), second.address6())
			}
			reachBoth()
			if memberFirst {
				member.stop()
				far.reaches(second.address4(), second.address6())
				middle.reaches(leaf.address4(), leaf.address6())
			} else {
				// Even a crash of one leaves the other alone, and what they share in place.
				second.kill()
				middle.must("down", "--state", second.state)
				middle.reaches(first.address4(), first.address6())
			}
			if v := middle.readSysctl("net.ipv4.conf.all.src_valid_mark"); v != "1" {
				t.Errorf("src_valid_mark is %s while one daemon still holds it", v)
			}
			if len(middle.list().with("holder file", "src_valid_mark")) != 1 {
				t.Error("no holder of src_valid_mark is on record while one daemon runs")
			}
		})
	}
}

package tun

import (
	"bytes"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
)

func TestMemoryCarriesBothWays(t *testing.T) {
	m := NewMemory("mem0")
	defer m.Close()
	if m.Name() != "mem0" || m.Offloads() != (Offloads{}) {
		t.Errorf("name %q, offloads %+v", m.Name(), m.Offloads())
	}
	const packets = 20
	for i := range packets {
		if err := m.Inject([]byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < packets; {
		read := slots(8)
		n, err := m.ReadPackets(read, 0)
		if err != nil || n == 0 {
			t.Fatalf("ReadPackets: %d, %v", n, err)
		}
		for _, p := range read[:n] {
			if string(p.Data) != strconv.Itoa(got) || p.Offload != (Offload{}) {
				t.Fatalf("packet %d is %q, %+v", got, p.Data, p.Offload)
			}
			got++
		}
	}
	for _, sent := range []string{"a", "bb"} {
		piece := []byte(sent)
		if err := m.WritePacket([][]byte{piece}, Offload{}); err != nil {
			t.Fatal(err)
		}
		clear(piece) // the device has copied
	}
	if a, b := <-m.Packets(), <-m.Packets(); string(a.Data) != "a" || string(b.Data) != "bb" {
		t.Errorf("got %q, %q", a.Data, b.Data)
	}
}

func TestMemoryRefusesWhatNoPacketCanBe(t *testing.T) {
	m := NewMemory("mem0")
	defer m.Close()
	if err := m.Inject(make([]byte, MaxPacketBytes+1)); err == nil {
		t.Error("a packet that no buffer holds was taken")
	}
	longest := bytes.Repeat([]byte{7}, MaxPacketBytes)
	if err := m.Inject(longest); err != nil {
		t.Fatal(err)
	}
	read := slots(1)
	n, err := m.ReadPackets(read, 0)
	if n != 1 || err != nil || !bytes.Equal(read[0].Data, longest) {
		t.Errorf("longest packet: %d, %v", n, err)
	}
}

// TestMemoryCloseEndsWaiting: ReadPackets with nothing to read, WritePacket and InjectPacket with full queues.
func TestMemoryCloseEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty, full := NewMemory("empty"), NewMemory("full")
		one := [][]byte{{1}}
		for range memoryQueuePackets {
			if err := errors.Join(full.Inject([]byte{1}), full.WritePacket(one, Offload{})); err != nil {
				t.Fatal(err)
			}
		}
		results := make(chan error, 3)
		go func() {
			_, err := empty.ReadPackets(slots(1), 0)
			results <- err
		}()
		go func() { results <- full.InjectPacket(Packet{Data: []byte{1}}) }()
		go func() { results <- full.WritePacket(one, Offload{}) }()
		synctest.Wait()
		if len(results) != 0 {
			t.Fatalf("did not wait: %v", <-results)
		}
		for _, m := range []*Memory{empty, full, full} { // twice is fine
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestMemoryClosedIsClosed: after Close nothing passes, whatever the queues hold.
func TestMemoryClosedIsClosed(t *testing.T) {
	m := NewMemory("mem0")
	for range 10 {
		if err := m.Inject([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	for range 10 {
		_, read := m.ReadPackets(slots(1), 0)
		_, tried := m.TryReadPackets(slots(1), 0)
		for call, err := range map[string]error{
			"ReadPackets": read, "TryReadPackets": tried, "WritePacket": m.WritePacket([][]byte{{1}}, Offload{}),
			"Inject": m.Inject([]byte{1}), "InjectPacket": m.InjectPacket(Packet{}),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Fatalf("%s: %v", call, err)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("interface is down")
	for _, c := range []struct {
		err   error
		text  string
		match error
	}{
		{
			&Error{Name: "aether0", Err: ErrNameInUse, Remedy: "choose another"},
			`create TUN device aether0: interface name in use: choose another`, ErrNameInUse,
		},
		{&Error{Name: "aether0", Err: cause}, `create TUN device aether0: interface is down`, cause},
		{&RefusedError{Err: cause}, `write refused by the host: interface is down`, cause},
	} {
		if c.err.Error() != c.text || !errors.Is(c.err, c.match) {
			t.Errorf("%v; want %s", c.err, c.text)
		}
	}
}

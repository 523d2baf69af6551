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
	bufs, sizes := room(m.BatchSize())
	for got := 0; got < packets; {
		n, err := m.Read(bufs, sizes, Headroom)
		if err != nil || n == 0 || n > m.BatchSize() {
			t.Fatalf("Read: %d, %v", n, err)
		}
		for i := range n {
			if p := string(bufs[i][Headroom:][:sizes[i]]); p != strconv.Itoa(got) {
				t.Fatalf("packet %d is %q", got, p)
			}
			got++
		}
	}
	sent := [][]byte{framed([]byte("a")), framed([]byte("bb"))}
	if err := m.Write(sent, Headroom); err != nil {
		t.Fatal(err)
	}
	clear(sent[0]) // the device has copied
	if a, b := <-m.Output(), <-m.Output(); string(a) != "a" || string(b) != "bb" {
		t.Errorf("got %q, %q", a, b)
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
	bufs, sizes := room(1)
	n, err := m.Read(bufs, sizes, Headroom)
	if n != 1 || err != nil || !bytes.Equal(bufs[0][Headroom:][:sizes[0]], longest) {
		t.Errorf("longest packet: %d, %v", n, err)
	}
}

// TestMemoryCloseEndsWaiting: Read with nothing to read, Write and Inject with full queues.
func TestMemoryCloseEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty, full := NewMemory("empty"), NewMemory("full")
		for range memoryQueuePackets {
			err := errors.Join(full.Inject([]byte{1}), full.Write([][]byte{framed([]byte{1})}, Headroom))
			if err != nil {
				t.Fatal(err)
			}
		}
		results := make(chan error, 3)
		go func() {
			bufs, sizes := room(1)
			_, err := empty.Read(bufs, sizes, Headroom)
			results <- err
		}()
		go func() { results <- full.Inject([]byte{1}) }()
		go func() { results <- full.Write([][]byte{framed([]byte{1})}, Headroom) }()
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
	bufs, sizes := room(1)
	for range 10 {
		if _, err := m.Read(bufs, sizes, Headroom); !errors.Is(err, ErrClosed) {
			t.Fatalf("Read: %v", err)
		}
		if err := m.Write([][]byte{framed([]byte{1})}, Headroom); !errors.Is(err, ErrClosed) {
			t.Fatalf("Write: %v", err)
		}
		if err := m.Inject([]byte{1}); !errors.Is(err, ErrClosed) {
			t.Fatalf("Inject: %v", err)
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
		{&RefusedError{Writes: 3, Err: cause}, `3 writes refused by the host: interface is down`, cause},
	} {
		if c.err.Error() != c.text || !errors.Is(c.err, c.match) {
			t.Errorf("%v; want %s", c.err, c.text)
		}
	}
}

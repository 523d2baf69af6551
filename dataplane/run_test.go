package dataplane

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aethertunnel/aethertunnel/tun"
)

// TestRunEnds: with its context quietly, with the NIC loudly. That no goroutine is left the bubble and TestMain see to.
func TestRunEnds(t *testing.T) {
	for name, c := range map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		end  func(cancel context.CancelFunc, nic *tun.Memory)
		want error
	}{
		"context": {
			context.WithCancel,
			func(cancel context.CancelFunc, nic *tun.Memory) { cancel(); nic.Close() }, nil,
		},
		"deadline": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Hour)
			},
			func(_ context.CancelFunc, nic *tun.Memory) { time.Sleep(time.Hour); synctest.Wait(); nic.Close() }, nil,
		},
		"NIC closed by others": {
			context.WithCancel,
			func(_ context.CancelFunc, nic *tun.Memory) { nic.Close() }, tun.ErrClosed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nic := tun.NewMemory("mem0")
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- New().Run(ctx, nic) }()
				synctest.Wait()
				c.end(cancel, nic)
				if err := <-done; !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		})
	}
}

// TestFatalFaultsOfTheNICEndRun: reading fails, writing fails, and the device comes to an end as the caller's reaction.
func TestFatalFaultsOfTheNICEndRun(t *testing.T) {
	fault := errors.New("no such device")
	for name, breakIt := range map[string]func(*faulty){
		"read":  func(f *faulty) { f.reads <- fault },
		"write": func(f *faulty) { f.writes <- fault },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nic := newFaulty()
				e := New()
				if err := e.Apply(gatewaySnapshot(idA)); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- e.Run(t.Context(), nic) }()
				breakIt(nic)
				if err := nic.Inject(ip(gw4, away4, "no route: answered with a write")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				nic.Close()
				if err := <-done; !errors.Is(err, fault) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// panicking is a NIC with a bug.
type panicking struct{ *tun.Memory }

func (panicking) ReadPackets([]tun.Packet, int) (int, error) { panic("oops") }

func TestPanicEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := New().Run(t.Context(), panicking{tun.NewMemory("mem0")})
		if err == nil || !strings.Contains(err.Error(), "panic: oops") {
			t.Errorf("got %v", err)
		}
	})
}

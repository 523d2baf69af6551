package udp

import (
	"context"
	"errors"
	"net"
	"syscall"
)

func openBackend(ctx context.Context, cfg Config, stats *counters) (backend, error) {
	return openWith(ctx, cfg, stats, linux{})
}

// openWith opens a batched socket, or the portable one where that is asked for or all there is.
func openWith(ctx context.Context, cfg Config, stats *counters, k kernel) (backend, error) {
	if cfg.WithoutBatch {
		return openPortable(ctx, cfg, stats, reasonOff)
	}
	if err := probe(k); err != nil {
		return openPortable(ctx, cfg, stats, "not available from this kernel: "+err.Error())
	}
	return openBatch(ctx, cfg, stats, k)
}

// reasonOff is the reason for what Config switches off.
const reasonOff = "switched off"

func setConnOptions(raw syscall.RawConn) error {
	var optErr error
	err := raw.Control(func(fd uintptr) {
		optErr = setOptions(int(fd), isIPv6(int(fd)))
	})
	return errors.Join(err, optErr)
}

func setConnBuffer(_ *net.UDPConn, raw syscall.RawConn, which buffer, bytes int) error {
	var setErr error
	err := raw.Control(func(fd uintptr) { setErr = setBufferFD(int(fd), which, bytes) })
	return errors.Join(err, setErr)
}

func connBuffers(raw syscall.RawConn) (receiveBytes, sendBytes int) {
	// A closed socket has none.
	_ = raw.Control(func(fd uintptr) {
		receiveBytes, sendBytes = bufferFD(int(fd), receiveBuffer), bufferFD(int(fd), sendBuffer)
	})
	return receiveBytes, sendBytes
}

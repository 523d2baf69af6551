package udp

import "sync/atomic"

// Stats counts what a Conn has done since it was opened.
type Stats struct {
	// ReceiveCalls counts calls of Receive that brought something, ReceivedMessages what they brought: one message is
	// one or more datagrams.
	ReceiveCalls      uint64 `json:"receive_calls"`
	ReceivedMessages  uint64 `json:"received_messages"`
	ReceivedDatagrams uint64 `json:"received_datagrams"`
	ReceivedBytes     uint64 `json:"received_bytes"`
	// ReceiveErrors counts errors that the kernel reported to the receiver on behalf of somebody else, such as a port
	// that refused.
	ReceiveErrors uint64 `json:"receive_errors"`

	// SendCalls counts system calls, SentDatagrams and SentBytes what they took. quic-go's are counted below.
	SendCalls     uint64 `json:"send_calls"`
	SentDatagrams uint64 `json:"sent_datagrams"`
	SentBytes     uint64 `json:"sent_bytes"`
	// SegmentationRefused counts long sends that had to be sent again as single datagrams.
	SegmentationRefused uint64 `json:"segmentation_refused"`
	// WaitsForRoom counts sends that found the socket's buffer full (EAGAIN) and waited.
	WaitsForRoom uint64 `json:"waits_for_room"`
	// Lost counts datagrams that ErrLost reported. TooLong and NoWayOut count the errors of those names.
	Lost     uint64 `json:"lost"`
	TooLong  uint64 `json:"too_long"`
	NoWayOut uint64 `json:"no_way_out"`

	// QUICDatagrams counts what Deliver queued for quic-go, QUICDropped what found the queue full and QUICTooLong what
	// was longer than any packet that quic-go reads.
	QUICDatagrams uint64 `json:"quic_datagrams"`
	QUICDropped   uint64 `json:"quic_dropped"`
	QUICTooLong   uint64 `json:"quic_too_long"`
	// QUICWrites counts quic-go's writes, several packets each, and QUICWriteBytes their bytes.
	QUICWrites     uint64 `json:"quic_writes"`
	QUICWriteBytes uint64 `json:"quic_write_bytes"`
	// QUICFragmented counts the datagrams among these that went in fragments.
	QUICFragmented uint64 `json:"quic_fragmented"`
}

// counters are Stats in the making. The receiver's are apart from the senders', which other cores write to.
type counters struct {
	receiveCalls, receivedMessages, receivedDatagrams, receivedBytes, receiveErrors atomic.Uint64
	quicDatagrams, quicDropped, quicTooLong                                         atomic.Uint64

	_ [64]byte

	sendCalls, sentDatagrams, sentBytes, segmentationRefused, waitsForRoom atomic.Uint64
	lost, tooLong, noWayOut, quicWrites, quicWriteBytes, quicFragmented    atomic.Uint64
}

// sent counts a call and what it took.
func (s *counters) sent(datagrams, bytes int) {
	s.sendCalls.Add(1)
	s.sentDatagrams.Add(uint64(datagrams))
	s.sentBytes.Add(uint64(bytes))
}

func (s *counters) received(ms []Message) {
	datagrams, bytes := 0, 0
	for i := range ms {
		datagrams += ms[i].Datagrams()
		bytes += len(ms[i].Data)
	}
	s.receiveCalls.Add(1)
	s.receivedMessages.Add(uint64(len(ms)))
	s.receivedDatagrams.Add(uint64(datagrams))
	s.receivedBytes.Add(uint64(bytes))
}

func (s *counters) stats() Stats {
	return Stats{
		ReceiveCalls: s.receiveCalls.Load(), ReceivedMessages: s.receivedMessages.Load(),
		ReceivedDatagrams: s.receivedDatagrams.Load(), ReceivedBytes: s.receivedBytes.Load(),
		ReceiveErrors: s.receiveErrors.Load(),
		SendCalls:     s.sendCalls.Load(), SentDatagrams: s.sentDatagrams.Load(), SentBytes: s.sentBytes.Load(),
		SegmentationRefused: s.segmentationRefused.Load(), WaitsForRoom: s.waitsForRoom.Load(),
		Lost: s.lost.Load(), TooLong: s.tooLong.Load(), NoWayOut: s.noWayOut.Load(),
		QUICDatagrams: s.quicDatagrams.Load(), QUICDropped: s.quicDropped.Load(), QUICTooLong: s.quicTooLong.Load(),
		QUICWrites: s.quicWrites.Load(), QUICWriteBytes: s.quicWriteBytes.Load(),
		QUICFragmented: s.quicFragmented.Load(),
	}
}

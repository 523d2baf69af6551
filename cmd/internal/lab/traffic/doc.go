// Package traffic makes and measures network traffic: bulk TCP, paced UDP, request and response, ICMP
// echo and web pages. It takes the place of iperf, sockperf, ping and curl in the demonstration, the
// benchmark and the end-to-end tests.
//
// One end is a [Server]: a TCP listener and a UDP socket at the same port, which do whatever a client
// asks of them. The other end is a value that describes a measurement, whose Run method returns a typed
// result. Both open their sockets on a [Host]: a network namespace of package lab, or [Here]. Nothing
// else joins the two ends, so what lies between them may be a cable, an emulated link or a tunnel:
//
//	server, err := traffic.Serve(ctx, gateway, "10.77.0.1:0")
//	defer server.Close()
//
//	up, err := traffic.Bulk{Streams: 8, Duration: 5 * time.Second}.Run(ctx, laptop, server.Addr())
//	down, err := traffic.Bulk{Duration: 5 * time.Second, Download: true}.Run(ctx, laptop, server.Addr())
//	flood, err := traffic.Paced{Bytes: 64, PacketsPerSecond: 100e3}.Run(ctx, laptop, server.Addr())
//	idle, err := traffic.Echo{Network: "udp", Duration: 3 * time.Second}.Run(ctx, laptop, server.Addr())
//	ping, err := traffic.Ping{Count: 5}.Run(ctx, laptop, netip.MustParseAddr("fd77::1"))
//
//	fmt.Println(up.BitsPerSecond(), flood.LossRatio(), idle.RTT.Quantile(0.999), ping.Lost())
//
// Every Run ends by itself: what never arrives is reported as lost after a while, what cannot go on is
// an error. A server trusts its clients; it belongs in a lab, not on the Internet.
package traffic

package masque

// Event is what [Session.Run] reports: one of [AddressAssignment],
// [AddressRequest], [RouteAdvertisement] and [PrivateCapsule].
type Event interface{ event() }

// PrivateCapsule is a capsule of one of the private types, of the version this
// package speaks. Echoes are answered by the session and not reported.
type PrivateCapsule struct {
	Type CapsuleType
	// Payload is what follows magic and version; the receiver may keep it.
	Payload []byte
}

func (AddressAssignment) event()  {}
func (AddressRequest) event()     {}
func (RouteAdvertisement) event() {}
func (PrivateCapsule) event()     {}

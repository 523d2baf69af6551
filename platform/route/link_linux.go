package route

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// linkAttr is an attribute of the interface that a linkThing sets.
type linkAttr string

const (
	attrMTU      linkAttr = "mtu"
	attrTxQueue  linkAttr = "txqueuelen"
	attrUp       linkAttr = "up"
	linkDownAttr          = 0
	linkUpAttr            = 1
)

// linkThing is one attribute of our interface.
type linkThing struct {
	deviceID
	Attr linkAttr `json:"attr"`
	Set  int      `json:"set"`
	// Was is the value right before Set, which differs from Before when we had set another one earlier.
	Was int `json:"was"`
	// Before is the value that is restored.
	Before int `json:"before"`
}

func (t *linkThing) kind() string { return kindLink }

// key does not hold the value: a new value replaces the old thing.
func (t *linkThing) key() string { return fmt.Sprintf("link %s %d %s", t.Device, t.Index, t.Attr) }

func (t *linkThing) present(k *kernel) bool {
	value, ok := k.linkValue(t.deviceID, t.Attr)
	return ok && value == t.Set
}

func (t *linkThing) add() error { return setLink(t.Index, t.Attr, t.Set) }

func (t *linkThing) remove(k *kernel) ([]journal.Left, error) {
	value, ok := k.linkValue(t.deviceID, t.Attr)
	switch {
	case !ok, value == t.Before:
		return nil, nil
	case value == t.Set, value == t.Was:
		return nil, gone(setLink(t.Index, t.Attr, t.Before))
	}
	return []journal.Left{{
		Thing: fmt.Sprintf("link %s %s", t.Device, t.Attr), Set: strconv.Itoa(t.Set), Found: strconv.Itoa(value),
	}}, nil
}

func setLink(index int, attr linkAttr, value int) error {
	var err error
	switch attr {
	case attrMTU:
		err = netlink.LinkSetMTU(linkRef(index), value)
	case attrTxQueue:
		err = netlink.LinkSetTxQLen(linkRef(index), value)
	case attrUp:
		if value == linkUpAttr {
			err = netlink.LinkSetUp(linkRef(index))
		} else {
			err = netlink.LinkSetDown(linkRef(index))
		}
	default:
		return fmt.Errorf("set %q of a link: unknown attribute", attr)
	}
	if err != nil {
		return fmt.Errorf("set %s %d of link %d: %w", attr, value, index, err)
	}
	return nil
}

func linkAttrValue(a *netlink.LinkAttrs, attr linkAttr) (int, bool) {
	switch attr {
	case attrMTU:
		return a.MTU, true
	case attrTxQueue:
		return a.TxQLen, true
	case attrUp:
		if a.RawFlags&flagUp != 0 {
			return linkUpAttr, true
		}
		return linkDownAttr, true
	}
	return 0, false
}

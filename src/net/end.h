// A packet end: where a zone's frames go to and come from on the host. One or more queues, each used by one thread at
// a time and by a thread of its own if its user likes.
#pragma once
#include <memory>
#include <string>

#include "net/frame.h"

namespace bulkhead::net {

enum class Sent : u8 {
  kDone,     // the frame is with the host; its memory is ours again
  kFull,     // no room: try again when the descriptor is writable
  kRefused,  // the host does not want this one, for ever
  kGone,     // the end is dead
};
enum class Received : u8 { kFrame, kNothing, kGone };

// Nothing here blocks.
class EndQueue {
 public:
  virtual ~EndQueue() = default;
  // For poll(): readable when receive() has something, writable when a send() that was kFull may go on. -1: never.
  virtual int descriptor() const = 0;
  // `frame`: an Ethernet frame without FCS, in pieces, at most kMaxFrame bytes. `header` asks for no more than takes().
  virtual Sent send(const FrameHeader& header, std::span<const IoBuffer> frame) = 0;
  // True: something of an earlier send() is still on its way, so ask to hear when the descriptor is writable, and
  // call flush() then.
  virtual bool unflushed() const { return false; }
  virtual void flush() {}
  // The next frame, valid and the caller's to write to until the next call. At most kMaxFrame bytes.
  virtual Received receive(FrameHeader& header, std::span<std::byte>& frame) = 0;
};

class End {
 public:
  virtual ~End() = default;
  virtual std::string description() const = 0;  // for messages: "the tap device tap0"
  virtual unsigned queue_count() const = 0;     // at least 1
  virtual EndQueue& queue(unsigned index) = 0;
  virtual Offloads takes() const = 0;  // in frames that we send to it
  // What frames from it may need. Before the first frame, and when it changes; while no queue is used.
  virtual void set_accepted(Offloads) {}
  // How many queues are in use from now on, the first ones; while no queue is used.
  virtual void set_active(unsigned) {}
};

}  // namespace bulkhead::net

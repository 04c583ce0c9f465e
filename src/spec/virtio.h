// Numbers of virtio 1.x, modern interface only. Sections are those of [virtio-1.3].
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::virtio {

// Device types [virtio-1.3 §5].
inline constexpr u32 kTypeNetwork = 1;
inline constexpr u32 kTypeBlock = 2;
inline constexpr u32 kTypeConsole = 3;
inline constexpr u32 kTypeEntropy = 4;
inline constexpr u32 kTypeFileSystem = 26;

// Device status [virtio-1.3 §2.1].
inline constexpr u8 kStatusAcknowledge = 1;
inline constexpr u8 kStatusDriver = 2;
inline constexpr u8 kStatusDriverOk = 4;
inline constexpr u8 kStatusFeaturesOk = 8;
inline constexpr u8 kStatusNeedsReset = 64;
inline constexpr u8 kStatusFailed = 128;

// Feature bits that belong to no device type [virtio-1.3 §6].
constexpr u64 feature(unsigned index) { return u64{1} << index; }
inline constexpr u64 kFeatureIndirect = feature(28);
inline constexpr u64 kFeatureEventIndex = feature(29);
inline constexpr u64 kFeatureVersion1 = feature(32);
inline constexpr u64 kFeaturePacked = feature(34);

inline constexpr u32 kMaxQueueSize = 32768;  // [virtio-1.3 §2.7, §2.8]

// Descriptor flags; the last two are the packed ring's [virtio-1.3 §2.7.5, §2.8.1].
inline constexpr u16 kDescNext = 1;
inline constexpr u16 kDescWrite = 2;
inline constexpr u16 kDescIndirect = 4;
inline constexpr u16 kDescAvail = 1 << 7;
inline constexpr u16 kDescUsed = 1 << 15;
inline constexpr u32 kDescBytes = 16;  // one descriptor, either format

// Split ring: flags of the available and the used ring [virtio-1.3 §2.7.6, §2.7.8].
inline constexpr u16 kAvailNoInterrupt = 1;
inline constexpr u16 kUsedNoNotify = 1;

// Packed ring: event suppression structures [virtio-1.3 §2.8.14].
inline constexpr u16 kEventEnable = 0;
inline constexpr u16 kEventDisable = 1;
inline constexpr u16 kEventDescriptor = 2;

namespace mmio {                           // registers [virtio-1.3 §4.2.2]
inline constexpr u32 kMagic = 0x74726976;  // "virt"
inline constexpr u32 kVersion = 2;
inline constexpr u64 kRegMagic = 0x000;
inline constexpr u64 kRegVersion = 0x004;
inline constexpr u64 kRegDeviceId = 0x008;
inline constexpr u64 kRegVendorId = 0x00c;
inline constexpr u64 kRegDeviceFeatures = 0x010;
inline constexpr u64 kRegDeviceFeaturesSel = 0x014;
inline constexpr u64 kRegDriverFeatures = 0x020;
inline constexpr u64 kRegDriverFeaturesSel = 0x024;
inline constexpr u64 kRegQueueSel = 0x030;
inline constexpr u64 kRegQueueSizeMax = 0x034;
inline constexpr u64 kRegQueueSize = 0x038;
inline constexpr u64 kRegQueueReady = 0x044;
inline constexpr u64 kRegQueueNotify = 0x050;
inline constexpr u64 kRegInterruptStatus = 0x060;
inline constexpr u64 kRegInterruptAck = 0x064;
inline constexpr u64 kRegStatus = 0x070;
inline constexpr u64 kRegQueueDescLow = 0x080;
inline constexpr u64 kRegQueueDescHigh = 0x084;
inline constexpr u64 kRegQueueDriverLow = 0x090;
inline constexpr u64 kRegQueueDriverHigh = 0x094;
inline constexpr u64 kRegQueueDeviceLow = 0x0a0;
inline constexpr u64 kRegQueueDeviceHigh = 0x0a4;
inline constexpr u64 kRegShmLenLow = 0x0b0;
inline constexpr u64 kRegShmBaseHigh = 0x0bc;
inline constexpr u64 kRegConfigGeneration = 0x0fc;
inline constexpr u64 kRegConfig = 0x100;
inline constexpr u32 kInterruptUsed = 1;
inline constexpr u32 kInterruptConfig = 2;
}  // namespace mmio

namespace blk {  // [virtio-1.3 §5.2]
inline constexpr u64 kFeatureSegMax = feature(2);
inline constexpr u64 kFeatureReadOnly = feature(5);
inline constexpr u64 kFeatureBlkSize = feature(6);
inline constexpr u64 kFeatureFlush = feature(9);
inline constexpr u64 kFeatureTopology = feature(10);
inline constexpr u64 kFeatureConfigWriteCache = feature(11);
inline constexpr u64 kFeatureMultiQueue = feature(12);
inline constexpr u64 kFeatureDiscard = feature(13);
inline constexpr u64 kFeatureWriteZeroes = feature(14);
inline constexpr u32 kIn = 0;
inline constexpr u32 kOut = 1;
inline constexpr u32 kFlush = 4;
inline constexpr u32 kGetId = 8;
inline constexpr u32 kDiscard = 11;
inline constexpr u32 kWriteZeroes = 13;
inline constexpr u8 kOk = 0;
inline constexpr u8 kIoErr = 1;
inline constexpr u8 kUnsupp = 2;
inline constexpr u32 kSectorSize = 512;
inline constexpr u32 kIdBytes = 20;
inline constexpr u32 kZeroesUnmap = 1;  // flag of a discard/write-zeroes segment

struct RequestHeader {  // device-readable
  u32 type, reserved;
  u64 sector;
};
struct RangeSegment {  // struct virtio_blk_discard_write_zeroes
  u64 sector;
  u32 num_sectors, flags;
};
struct Config {  // [virtio-1.3 §5.2.4]
  u64 capacity;
  u32 size_max, seg_max;
  u16 cylinders;
  u8 heads, sectors;
  u32 blk_size;
  u8 physical_block_exp, alignment_offset;
  u16 min_io_size;
  u32 opt_io_size;
  u8 writeback, unused0;
  u16 num_queues;
  u32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
  u32 max_write_zeroes_sectors, max_write_zeroes_seg;
  u8 write_zeroes_may_unmap, unused1[3];
};
static_assert(sizeof(Config) == 64 && sizeof(RequestHeader) == 16 && sizeof(RangeSegment) == 16);
}  // namespace blk

namespace net {  // [virtio-1.3 §5.1]
inline constexpr u64 kFeatureChecksum = feature(0);
inline constexpr u64 kFeatureGuestChecksum = feature(1);
inline constexpr u64 kFeatureGuestOffloads = feature(2);  // they may be changed by the control queue
inline constexpr u64 kFeatureMtu = feature(3);
inline constexpr u64 kFeatureMac = feature(5);
inline constexpr u64 kFeatureGuestTso4 = feature(7);
inline constexpr u64 kFeatureGuestTso6 = feature(8);
inline constexpr u64 kFeatureGuestEcn = feature(9);
inline constexpr u64 kFeatureHostTso4 = feature(11);
inline constexpr u64 kFeatureHostTso6 = feature(12);
inline constexpr u64 kFeatureHostEcn = feature(13);
inline constexpr u64 kFeatureMergeable = feature(15);
inline constexpr u64 kFeatureStatus = feature(16);
inline constexpr u64 kFeatureControl = feature(17);
inline constexpr u64 kFeatureControlRx = feature(18);
inline constexpr u64 kFeatureMultiQueue = feature(22);
inline constexpr u64 kFeatureControlMac = feature(23);
inline constexpr u64 kFeatureGuestUso4 = feature(54);
inline constexpr u64 kFeatureGuestUso6 = feature(55);
inline constexpr u64 kFeatureHostUso = feature(56);
// Queues: pair N has receive 2N and transmit 2N+1; the control queue is behind the last that there could be [§5.1.2].
inline constexpr u16 kStatusLinkUp = 1;
// In front of each packet [§5.1.6]: net::FrameHeader and, always in a modern device, this.
inline constexpr u32 kHeaderBytes = 12, kBufferCountAt = 10;
// Classes and commands of the control queue [§5.1.6.5]; what comes back is one byte.
inline constexpr u8 kControlOk = 0, kControlError = 1;
inline constexpr u8 kClassRx = 0, kClassMac = 1, kClassMultiQueue = 4, kClassOffloads = 5;
inline constexpr u8 kRxPromiscuous = 0, kRxAllMulticast = 1, kRxAllUnicast = 2, kRxNoMulticast = 3, kRxNoUnicast = 4,
                    kRxNoBroadcast = 5;
inline constexpr u8 kMacTable = 0, kMacAddress = 1;
inline constexpr u8 kMultiQueuePairs = 0;
inline constexpr u8 kOffloadsSet = 0;

struct Config {  // [§5.1.4]
  u8 mac[6];
  u16 status;
  u16 max_virtqueue_pairs;
  u16 mtu;
  u32 speed;
  u8 duplex, rss_max_key_size;
  u16 rss_max_indirection_table_length;
  u32 supported_hash_types;
};
static_assert(sizeof(Config) == 24);
}  // namespace net

namespace console {  // [virtio-1.3 §5.3]
inline constexpr u64 kFeatureSize = feature(0);
inline constexpr u64 kFeatureMultiport = feature(1);
inline constexpr u64 kFeatureEmergencyWrite = feature(2);
// Queues: 0/1 are port 0's receive and transmit, 2/3 the control pair, port N >= 1 has 2N+2 and 2N+3 [§5.3.2].
inline constexpr u32 kControlReceive = 2;
inline constexpr u32 kControlTransmit = 3;
// Control messages [§5.3.6.2].
inline constexpr u16 kDeviceReady = 0;
inline constexpr u16 kDeviceAdd = 1;
inline constexpr u16 kDeviceRemove = 2;
inline constexpr u16 kPortReady = 3;
inline constexpr u16 kConsolePort = 4;
inline constexpr u16 kResize = 5;
inline constexpr u16 kPortOpen = 6;
inline constexpr u16 kPortName = 7;

struct Control {
  u32 id;
  u16 event, value;
};
struct Config {
  u16 cols, rows;
  u32 max_nr_ports, emerg_wr;
};
static_assert(sizeof(Control) == 8 && sizeof(Config) == 12);
}  // namespace console

}  // namespace bulkhead::spec::virtio

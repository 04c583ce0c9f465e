#include "device/rtc/rtc.h"

#include <algorithm>
#include <utility>

namespace bulkhead::device {
namespace {
constexpr i64 kSecond = 1'000'000'000;
constexpr i64 kUpdateTime = 2'228'000;  // 244 us of warning and 1984 us of update

enum Register : u8 {
  kSeconds = 0,
  kSecondsAlarm,
  kMinutes,
  kMinutesAlarm,
  kHours,
  kHoursAlarm,
  kWeekday,
  kDay,
  kMonth,
  kYear,
  kA,
  kB,
  kC,
  kD
};
// A
constexpr u8 kUip = 0x80, kDividerReset = 0x60, kRate = 0x0f;
// B
constexpr u8 kSet = 0x80, kPeriodicEnable = 0x40, kAlarmEnable = 0x20, kUpdateEnable = 0x10, kSquareWave = 0x08,
             kBinary = 0x04, k24Hours = 0x02;
// C: the flags have the places of their enables in B
constexpr u8 kIrqFlag = 0x80, kPeriodicFlag = 0x40, kAlarmFlag = 0x20, kUpdateFlag = 0x10;
constexpr u8 kEnables = kPeriodicEnable | kAlarmEnable | kUpdateEnable;
// D
constexpr u8 kValidRam = 0x80;
constexpr u8 kAfternoon = 0x80;  // in an hour of 12
constexpr u8 kAnyAlarm = 0xc0;   // an alarm byte with both bits set matches everything

bool is_time(u8 index) {
  return index == Rtc::kCenturyRegister || (index <= kYear && (index > kHoursAlarm || index % 2 == 0));
}
bool divider_held(u8 a) { return (a & kDividerReset) == kDividerReset; }
i64 floor_seconds(i128 time) { return static_cast<i64>((time - (time % kSecond + kSecond) % kSecond) / kSecond); }
}  // namespace

Rtc::Rtc(TimerService& timers, IrqLine& irq)
    : clock_{timers.clock()}, irq_{irq}, timer_{timers.create([this] { timer_expired(); })} {
  Lock lock{mutex_};
  cmos_[kA] = 0x26;  // 32768 Hz, 1024 interrupts a second if enabled
  cmos_[kB] = k24Hours;
  cmos_[kD] = kValidRam;
  seen_time_ = guest_time();
  seen_now_ = clock_.now();
}

void Rtc::reset() {
  Lock lock{mutex_};
  index_ = 0;
  cmos_[kB] &= ~(kEnables | kSquareWave);
  cmos_[kC] = 0;
  update_irq();
}

void Rtc::set_cmos(u8 index, u8 value) {
  Lock lock{mutex_};
  if (index > kD && index < kCmosSize && index != kCenturyRegister) cmos_[index] = value;
}

u8 Rtc::read_byte(unsigned index) {
  Lock lock{mutex_};
  return index == 0 ? 0xff : read_register();  // the index cannot be read
}

void Rtc::write_byte(unsigned index, u8 value) {
  Lock lock{mutex_};
  if (index == 0)
    index_ = value & 0x7f;
  else
    write_register(value);
}

u8 Rtc::read_register() {
  if (index_ == kC) return read_flags();
  if (index_ == kA) return cmos_[kA] | (update_in_progress() ? kUip : 0);
  if (is_time(index_) && !time_stands()) show_time();
  return cmos_[index_];
}

u8 Rtc::read_flags() {
  catch_up();
  update_irq();  // sets IRQF
  const u8 flags = std::exchange(cmos_[kC], u8{0});
  update_irq();
  return flags;
}

void Rtc::write_register(u8 value) {
  catch_up();  // under the old programming
  if (index_ == kA)
    write_control(value & ~kUip, cmos_[kB]);
  else if (index_ == kB)
    write_control(cmos_[kA], value);
  else if (is_time(index_))
    write_time(value);
  else if (index_ != kC && index_ != kD)
    cmos_[index_] = value;
  update_irq();
}

void Rtc::write_time(u8 value) {
  if (time_stands()) {
    cmos_[index_] = value;
    return;
  }
  const i128 before = guest_time();
  show_time();
  cmos_[index_] = value;
  offset_ += i128{shown_time() - floor_seconds(before)} * kSecond;  // the fraction runs on
  seen_time_ = guest_time();
}

void Rtc::write_control(u8 a, u8 b) {
  const bool stood = time_stands(), was_held = divider_held(cmos_[kA]);
  if (b & kSet) b &= ~kUpdateEnable;  // [mc146818 "SET"]
  if (!stood) show_time();            // in the old format: this is what stays if the time stands from now on
  cmos_[kA] = a;
  cmos_[kB] = b;
  if (was_held && !divider_held(a)) seen_now_ = clock_.now();
  if (!stood || time_stands()) return;
  // The time starts again from the registers. A divider out of reset makes its first update after half a second.
  const i128 host = clock_.unix_time_ns();
  const i128 fraction = was_held ? kSecond / 2 : ((host + offset_) % kSecond + kSecond) % kSecond;
  offset_ = i128{shown_time()} * kSecond + fraction - host;
  seen_time_ = guest_time();
}

bool Rtc::time_stands() const { return (cmos_[kB] & kSet) || divider_held(cmos_[kA]); }

bool Rtc::update_in_progress() const {
  if (time_stands()) return false;
  const i128 time = guest_time();
  return time - i128{floor_seconds(time)} * kSecond >= kSecond - kUpdateTime;
}

i128 Rtc::guest_time() const { return i128{clock_.unix_time_ns()} + offset_; }

void Rtc::show_time() {
  const CalendarTime time = calendar_from_unix(floor_seconds(guest_time()));
  cmos_[kSeconds] = encoded(time.second);
  cmos_[kMinutes] = encoded(time.minute);
  cmos_[kHours] = encoded_hour(time.hour);
  cmos_[kWeekday] = encoded(time.weekday);
  cmos_[kDay] = encoded(time.day);
  cmos_[kMonth] = encoded(time.month);
  cmos_[kYear] = encoded(time.year % 100);
  cmos_[kCenturyRegister] = encoded(time.year / 100 % 100);
}

i64 Rtc::shown_time() const {
  CalendarTime time;
  time.second = decoded(cmos_[kSeconds]);
  time.minute = decoded(cmos_[kMinutes]);
  time.hour = decoded_hour(cmos_[kHours]);
  time.day = decoded(cmos_[kDay]);
  time.month = decoded(cmos_[kMonth]);
  time.year = decoded(cmos_[kCenturyRegister]) % 100 * 100 + decoded(cmos_[kYear]);
  return unix_from_calendar(time);
}

u8 Rtc::encoded(u32 value) const {
  return static_cast<u8>((cmos_[kB] & kBinary) ? value : value / 10 << 4 | value % 10);
}
u32 Rtc::decoded(u8 raw) const { return (cmos_[kB] & kBinary) ? raw : (raw >> 4) * 10u + (raw & 15); }

u8 Rtc::encoded_hour(u32 hour) const {
  if (cmos_[kB] & k24Hours) return encoded(hour);
  const u8 twelve = encoded(hour % 12 == 0 ? 12 : hour % 12);
  return hour >= 12 ? twelve | kAfternoon : twelve;
}
u32 Rtc::decoded_hour(u8 raw) const {
  if (cmos_[kB] & k24Hours) return decoded(raw);
  return decoded(raw & ~kAfternoon) % 12 + ((raw & kAfternoon) ? 12 : 0);
}

Nanoseconds Rtc::period() const {
  const unsigned rate = cmos_[kA] & kRate;
  if (rate == 0 || divider_held(cmos_[kA])) return 0;
  // 1 and 2 are the rates of 8 and 9, an oddity of the divider chain.
  return u64{kSecond} * (u64{1} << ((rate <= 2 ? rate + 7 : rate) - 1)) / 32768;
}

std::optional<i64> Rtc::next_alarm(i64 after) const {
  constexpr u32 kAny = ~0u;
  const auto wanted = [](u8 raw, u32 value) { return (raw & kAnyAlarm) == kAnyAlarm ? kAny : value; };
  const u32 hour = wanted(cmos_[kHoursAlarm], decoded_hour(cmos_[kHoursAlarm]));
  const u32 minute = wanted(cmos_[kMinutesAlarm], decoded(cmos_[kMinutesAlarm]));
  const u32 second = wanted(cmos_[kSecondsAlarm], decoded(cmos_[kSecondsAlarm]));
  const auto never = [](u32 value, u32 limit) { return value != kAny && value >= limit; };
  if (never(hour, 24) || never(minute, 60) || never(second, 60)) return std::nullopt;

  const auto differs = [](u32 value, i64 now) { return value != kAny && value != static_cast<u32>(now); };
  // Leaps over hours and minutes that do not match: at most some 60 + 24 + 60 + 60 steps.
  for (i64 at = after + 1;;) {
    const i64 of_day = (at % 86400 + 86400) % 86400;
    if (differs(hour, of_day / 3600))
      at += 3600 - of_day % 3600;
    else if (differs(minute, of_day / 60 % 60))
      at += 60 - of_day % 60;
    else if (differs(second, of_day % 60))
      ++at;
    else
      return at;
  }
}

void Rtc::catch_up() {
  const Nanoseconds now = clock_.now();
  if (const Nanoseconds step = period(); step != 0 && now / step != seen_now_ / step) cmos_[kC] |= kPeriodicFlag;
  seen_now_ = now;
  const i128 time = guest_time();
  if (!time_stands() && time > seen_time_) {  // the host's wall clock may be set back
    const i64 from = floor_seconds(seen_time_), to = floor_seconds(time);
    if (to > from) cmos_[kC] |= kUpdateFlag;
    if (const auto alarm = to > from ? next_alarm(from) : std::nullopt; alarm && *alarm <= to) cmos_[kC] |= kAlarmFlag;
  }
  seen_time_ = time;
}

void Rtc::update_irq() {
  if (cmos_[kC] & cmos_[kB] & kEnables)
    cmos_[kC] |= kIrqFlag;
  else
    cmos_[kC] &= ~kIrqFlag;
  irq_.set(cmos_[kC] & kIrqFlag);
  schedule();
}

void Rtc::schedule() {
  const u8 enabled = cmos_[kB] & kEnables;
  if (enabled == 0 || (cmos_[kC] & kIrqFlag)) return timer_->disarm();  // nothing new before C is read
  std::optional<Nanoseconds> next;
  const auto consider = [&](Nanoseconds at) { next = std::min(next.value_or(at), at); };
  const Nanoseconds now = clock_.now();
  if (const Nanoseconds step = period(); (enabled & kPeriodicEnable) && step != 0) consider((now / step + 1) * step);
  if (!time_stands()) {
    const i128 time = guest_time();
    const i64 second = floor_seconds(time);
    const auto until = [&](i64 at) { return now + static_cast<u64>(i128{at} * kSecond - time); };
    if (enabled & kUpdateEnable) consider(until(second + 1));
    if (const auto alarm = (enabled & kAlarmEnable) ? next_alarm(second) : std::nullopt) consider(until(*alarm));
  }
  if (next)
    timer_->arm(*next);
  else
    timer_->disarm();
}

void Rtc::timer_expired() {
  Lock lock{mutex_};
  catch_up();
  update_irq();
}

}  // namespace bulkhead::device

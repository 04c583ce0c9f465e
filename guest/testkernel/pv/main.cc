// Does what the words of the command line say: see README.md.
#include <stdint.h>
#include <xen/event_channel.h>
#include <xen/io/console.h>
#include <xen/sched.h>
#include <xen/version.h>

#include "hypervisor.h"

namespace testkernel {

start_info_t* boot_info;

namespace {

xencons_interface* console;

void put_character(char c) {
  while (console->out_prod - console->out_cons == sizeof console->out) {
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield);
    asm volatile("" ::: "memory");
  }
  console->out[console->out_prod % sizeof console->out] = c;
  asm volatile("" ::: "memory");
  console->out_prod = console->out_prod + 1;
}

void notify() {
  evtchn_send_t send{boot_info->console.domU.evtchn};
  operation(__HYPERVISOR_event_channel_op, EVTCHNOP_send, send);
}

bool is(const char* text, const char* word) {
  while (*word != 0)
    if (*text++ != *word++) return false;
  return *text == 0 || *text == ' ';
}

void say_hello() {
  put("hello from ");
  put(boot_info->magic);
  put("\n");
}

void say_in_emergency() {
  static const char kText[] = "hello from the emergency console\n";
  hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, sizeof kText - 1, reinterpret_cast<u64>(kText));
}

constexpr struct {
  const char* word;
  void (*act)();
} kWords[] = {
    {"hello", say_hello},
    {"emergency", say_in_emergency},
    {"refusals",
     [] {
       put_number(check_refusals());
       put(" refusals failed\n");
     }},
    {"two-vcpus",
     [] {
       put_number(check_two_vcpus());
       put(" checks of two vCPUs failed\n");
     }},
    {"null-hypercall", measure_null_hypercall},
    {"poweroff", [] { shut_down(SHUTDOWN_poweroff); }},
    {"reboot", [] { shut_down(SHUTDOWN_reboot); }},
    {"crash", [] { shut_down(SHUTDOWN_crash); }},
    {"fault", [] { *reinterpret_cast<volatile int*>(0x1000) = 1; }},
    {"spin",
     [] {
       put("spinning\n");
       while (true) asm volatile("pause");
     }},
};

void load_traps() {
  extern const char stubs_begin[] asm("stubs");
  static trap_info_t table[34];
  for (unsigned i = 0; i < 33; ++i) {
    const bool interrupt = i == 32;
    table[i] = {static_cast<uint8_t>(interrupt ? 0x80 : i), static_cast<uint8_t>(interrupt ? 3 : 0), FLAT_KERNEL_CS,
                reinterpret_cast<u64>(stubs_begin + 16 * i)};
  }
  hypercall(__HYPERVISOR_set_trap_table, address_of(table));
}

}  // namespace

void put(const char* text) {
  while (*text != 0) put_character(*text++);
  notify();
}
void put_number(i64 value) {
  char digits[24];
  char* at = digits + sizeof digits;
  *--at = 0;
  u64 rest = value < 0 ? -static_cast<u64>(value) : static_cast<u64>(value);
  do *--at = static_cast<char>('0' + rest % 10);
  while ((rest /= 10) != 0);
  if (value < 0) *--at = '-';
  put(at);
}

u64 machine_of(const void* page) {
  return reinterpret_cast<const u64*>(boot_info->mfn_list)[(reinterpret_cast<u64>(page) - kBase) >> 12];
}
u64 machine_address(const void* object) { return machine_of(object) << 12 | (reinterpret_cast<u64>(object) & 0xfff); }
u64* table_at(u64 machine_frame) { return reinterpret_cast<u64*>(kBase + (physical_of(machine_frame) << 12)); }
u64* entry_of(u64 linear, unsigned level) {
  u64* table = reinterpret_cast<u64*>(boot_info->pt_base);
  for (unsigned at = 4;; --at) {
    u64* const entry = table + (linear >> (12 + 9 * (at - 1)) & 511);
    if (at == level) return entry;
    table = table_at((*entry & 0xffffffffff000) >> 12);
  }
}

void shut_down(unsigned reason) {
  while (console->out_cons != console->out_prod) {
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield);
    asm volatile("" ::: "memory");
  }
  operation(__HYPERVISOR_sched_op, SCHEDOP_shutdown, sched_shutdown_t{reason});
  while (true) asm volatile("pause");
}

}  // namespace testkernel

extern "C" [[noreturn]] void unexpected_exception(unsigned number) {
  testkernel::put("unexpected exception ");
  testkernel::put_number(number);
  testkernel::put("\n");
  testkernel::shut_down(SHUTDOWN_crash);
}

extern "C" [[noreturn]] void kernel_main(start_info_t* info) {
  using namespace testkernel;
  boot_info = info;
  console = reinterpret_cast<xencons_interface*>(kBase + (physical_of(info->console.domU.mfn) << 12));
  load_traps();
  const char* text = reinterpret_cast<const char*>(info->cmd_line);
  for (bool start = true; *text != 0; start = *text++ == ' ')
    if (start)
      for (const auto& known : kWords)
        if (is(text, known.word)) known.act();
  put("no more words\n");
  shut_down(SHUTDOWN_poweroff);
}

"""What a guest printed, as facts that can be compared: keys and values without what differs from boot to boot."""
import fnmatch
import re

# Numbers that are another on every boot, host or zone.
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SHAPES = [(UUID, "UUID"), (re.compile(r"/local/domain/[1-9]\d*"), "/local/domain/D"),
          (re.compile(r"(backend/\w+)/[1-9]\d*"), r"\1/D")]
# Flags that depend on how a guest is run, not on which CPU it is.
JUDGED_FLAGS = set("hypervisor vme pse pse36 pge mtrr mca mce sep pcid invpcid smep smap umip apic x2apic tsc_deadline_timer "
                   "monitor pat syscall nx de msr xsave osxsave fsgsbase constant_tsc nonstop_tsc tsc_reliable nopl cpuid "
                   "tsc_known_freq xenpv vmmcall svm vmx pti arat".split())
XEN_LINE = re.compile(r"xen|grant|hypervisor|clocksource|event.channel|paravirt|\bpv\b|hvc|balloon|xvd|e820|vcpuop|blkfront|"
                      r"apic|legacy pic|smpboot|steal|spinlock|acpi|pci:|vpmu|dmi|console|remapped|released|"
                      r"\bpmu\b|x86/pat|x86/fpu|tsc|nx \(|timer", re.IGNORECASE)


def plain(text):
    for shape, name in SHAPES:
        text = shape.sub(name, text)
    return text


def parse(console):
    """{section: [(key, value)]} of the lines that guest.cc printed, and whether it got to the end."""
    sections, ended = {}, False
    for line in console.replace("\r", "").split("\n"):
        ended |= line.startswith("@@ end")
        parts = line[3:].split("\t") if line.startswith("@@ ") else []
        if len(parts) == 3:
            sections.setdefault(parts[0], []).append((parts[1], parts[2]))
    return sections, ended


# ---- one function a section: pairs in, {key: value} out

def files(pairs):
    return {plain(key): plain(value) for key, value in pairs if "/power/" not in key and not key.endswith("/uevent")}


def devices(pairs):
    # Misc devices (major 10) get numbers as they come.
    return {key: re.sub(r"\b(10|24\d|25\d|51\d):\d+", r"\1:*", value) for key, value in pairs}


def interrupts(pairs):
    out = {}
    for _, line in pairs:
        found = re.match(r"\s*(\w+):((?:\s+\d+)+)\s*(.*)$", line)
        if found and found[3]:
            name = " ".join(found[3].split())
            out[name if found[1].isdigit() else f"{found[1]} {name}"] = "present"
    return out


def cpu_flags(pairs):
    flags = next((line.split(":", 1)[1].split() for _, line in pairs if line.startswith("flags")), [])
    return {flag: "present" for flag in flags if flag in JUDGED_FLAGS}


def kernel_log(pairs):
    out = {}
    for _, line in pairs:
        if not XEN_LINE.search(line) or line.startswith(("Command line", "Kernel command line")):
            continue
        line = plain(re.sub(r"\b0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b", "0x#", line))
        line = re.sub(r"(LNX|PNP)(\w*:)\w+", r"\1\2#", line)
        out[re.sub(r"(?<![\w.-])\d+(\.\d+)?(?![\w:])|\d+(?=ns|ms|us|KiB|[KM]\b)", "#", line)] = "present"
    return out


def hypervisor_leaves(pairs):
    out = {}
    for key, value in pairs:
        if not key.startswith("4000"):
            continue
        a, b, c, d = value.split(" ") if value.count(" ") == 3 else (value, "", "", "")
        if key == "40000003.0":  # ECX is the rate of the TSC, EDX how often the guest has moved
            value = f"{a} mode {b} khz {'set' if c != '00000000' else 'none'} incarnation {d}"
        elif key == "40000003.1":  # an offset and a scale
            value = "offset, scale"
        elif key == "40000003.2":  # the host's rate
            value = f"khz {'set' if a != '00000000' else 'none'}"
        out[key] = value
    return out


def store(pairs):
    home = next((value for key, value in pairs if key == "home"), "/local/domain/?")
    domid = home.rsplit("/", 1)[1]
    out = {}
    for key, value in pairs:
        if key == "home" or "/device/" in key and key.count("/") > 6 and key.endswith("event-channel"):
            continue
        text, _, permissions = value.rpartition(" (")
        permissions = re.sub(rf"(?<=[nrbw]){re.escape(domid)}\b", "D", permissions)
        text = "#" if key.endswith(("/port", "/ring-ref", "/event-channel", "/domid", "static-max", "/target")) else plain(text)
        out[key.replace(home, "~")] = f"{text} ({permissions}"
    return out


def lines(pairs):
    return {re.sub(r"\s+", " ", line): "present" for _, line in pairs}


def log_says(expression):
    def found(pairs):
        every = [match[1] for _, line in pairs if (match := re.search(expression, line))]
        return {"": every[0] if every else "not said"}
    return found


SECTIONS = [  # name shown, section of guest.cc, function
    ("sysfs", "sysfs", files), ("clocksource", "clocksource", files),
    ("event channel ABI", "kmsg", log_says(r"xen:events: Using (\S+?)-based ABI")),
    ("grant table version", "kmsg", log_says(r"Grant tables using version (\d) layout")),
    ("hypervisor detected", "kmsg", log_says(r"Hypervisor detected: (.*)")),
    ("device nodes", "dev", devices), ("interrupts", "interrupts", interrupts), ("cpuid 0x4000000x", "cpuid", hypervisor_leaves),
    ("cpuid by prefix", "cpuid-prefix", hypervisor_leaves), ("cpu flags", "cpuinfo", cpu_flags), ("xenstore", "xenstore", store),
    ("memory map", "memmap", files), ("balloon", "balloon", files), ("acpi", "acpi", files), ("bus", "bus", files),
    ("class", "class", files), ("consoles", "consoles", lines), ("dmesg", "kmsg", kernel_log)]


def comparable(sections):
    return {shown: function(sections.get(section, [])) for shown, section, function in SECTIONS}


# ---- differences that are known

def read_reasons(document):
    """Rows `| types | section | key | reason |` of docs/xen-differences.md; types and key may have * and ?."""
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in document.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == 4 and row[0] not in ("zone", "---")]


def literal(pattern):
    return pattern.replace("[", "[[]")


def reason_for(reasons, zone, section, key, used):
    for row in reasons:
        types, wanted, pattern, reason = row
        if any(fnmatch.fnmatchcase(zone, one) for one in types.split()) and wanted == section and \
                any(fnmatch.fnmatchcase(key, literal(one)) for one in pattern.split(" ; ")):
            used.add(tuple(row))
            return reason
    return None

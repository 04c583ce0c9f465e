# Texts, numbers and processes in Perl.
perl -e 'printf "%vd\n", $^V'
cat > work.pl <<'P'
use strict; use warnings; use Digest::SHA qw(sha256_hex sha512_hex); use Digest::MD5 qw(md5_hex);
use List::Util qw(sum shuffle reduce); use POSIX qw(floor fmod); use Math::BigInt; use Math::BigFloat; use Storable qw(freeze thaw);
my $seed = 12345; sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed }
my @words = map { substr(md5_hex(rnd()), 0, 1 + rnd() % 16) } 1 .. 40000;
print "sort ", sha256_hex(join ",", sort @words), " ", sha256_hex(join ",", sort { length $a <=> length $b or $b cmp $a } @words), "\n";
my %count; $count{$_}++ for split //, join "", @words;
print "count ", join(" ", map { "$_=$count{$_}" } sort keys %count), "\n";
my $text = join " ", @words; my $hits = () = $text =~ /([a-f]+\d+){2,}/g; (my $other = $text) =~ s/(\d)([a-f])/$2$1/g;
print "regex $hits ", sha512_hex($other), " ", ($other =~ tr/a-f//), "\n";
my @floats = map { (rnd() - 1e9) / 12345.678 } 1 .. 20000;
print "floats ", sha256_hex(join ",", map { sprintf "%.17g %.3e %a", $_, $_ * 3, $_ / 7 } @floats), "\n";
print "math ", sha256_hex(join ",", map { sprintf "%.15g", sin($_) + cos($_) * exp(-abs($_) / 1e5) + log(1 + abs $_) + sqrt(abs $_) + atan2($_, 3) } @floats), "\n";
print "posix ", sha256_hex(join ",", map { floor($_) . fmod($_, 7) } @floats), "\n";
print "big ", sha256_hex(Math::BigInt->new(500)->bfac->bstr), " ", Math::BigInt->new(2)->bpow(521)->bsub(1)->bstr, "\n";
print "pi ", Math::BigFloat->bpi(120), "\n";
print "pack ", unpack("H*", pack("C n N v V q d f w A5 a3", 1, 2, 3, 4, 5, -6, 7.5, 8.25, 300, "ab", "c")), "\n";
my $deep = thaw(freeze({ list => [1 .. 1000], hash => { map { $_ => $_ ** 2 } 1 .. 100 } }));
print "storable ", sum(@{ $deep->{list} }), " ", sum(values %{ $deep->{hash} }), "\n";
my @matrix = map { [map { rnd() % 100 } 1 .. 60] } 1 .. 60;
my $trace = 0; for my $i (0 .. 59) { for my $k (0 .. 59) { $trace += $matrix[$i][$k] * $matrix[$k][$i] } } print "trace $trace\n";
for my $n (1 .. 20) { my $pid = fork; if (!$pid) { exit $n } waitpid $pid, 0; print "child ", $? >> 8, "\n" }
pipe my $in, my $out; if (!fork) { close $in; print $out "x" x 200000; exit } close $out; local $/; print "pipe ", length(<$in>), "\n"; wait;
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; 1 while 1 }; print "signal $@";
P
perl work.pl

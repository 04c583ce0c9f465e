# Digests, ciphers, MACs and signatures by every code path that the CPU offers: OPENSSL_ia32cap hides features step by step.
openssl version
openssl enc -aes-128-ctr -K 000102030405060708090a0b0c0d0e0f -iv 00 -nosalt -in /dev/zero 2>/dev/null | head -c 3000001 > data
sha256sum data
head -c 5000 data > message
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
# everything; no AES-NI, no PCLMUL; no AVX and beyond; no AVX2, BMI, ADX, SHA; no SSSE3; nothing but the base
for mask in none "~0x200000200000000" "~0x1000000000000000:~0x0" ":~0x200c0128" ":~0x20000000" "~0x1000020200000200:~0x200c0128" \
            ":~0xd0230000" "0x0:0x0"; do
  echo "mask $mask"
  if [ "$mask" = none ]; then unset OPENSSL_ia32cap; else export OPENSSL_ia32cap=$mask; fi
  for digest in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 shake128 blake2b512 blake2s256 ripemd160 sm3; do
    openssl dgst -$digest data 2>/dev/null || echo "no $digest"
  done
  for cipher in aes-128-cbc aes-256-cbc aes-128-ctr aes-256-ctr aes-192-ecb aes-256-cfb aes-256-ofb chacha20 camellia-256-cbc aria-128-ctr sm4-cbc; do
    openssl enc -$cipher -K $key -iv 000102030405060708090a0b0c0d0e0f -in data -out packed 2>/dev/null || { echo "no $cipher"; continue; }
    openssl enc -d -$cipher -K $key -iv 000102030405060708090a0b0c0d0e0f -in packed -out unpacked 2>/dev/null
    echo "$cipher $(sha256sum < packed) $(cmp data unpacked && echo same)"
  done
  openssl mac -cipher aes-256-gcm -macopt hexkey:$key -macopt hexiv:000102030405060708090a0b -in data GMAC
  openssl mac -cipher aes-256-cbc -macopt hexkey:$key -in data CMAC
  openssl mac -macopt hexkey:$key -in data Poly1305
  openssl mac -macopt hexkey:$key -digest sha512 -in data HMAC 2>/dev/null || openssl mac -macopt hexkey:$key -macopt digest:sha512 -in data HMAC
  openssl pkeyutl -sign -inkey ed25519.pem -rawin -in message | sha256sum
  openssl dgst -sha256 -sign rsa.pem data | sha256sum
  openssl dgst -sha512 -sign rsa.pem data > signature && openssl dgst -sha512 -prverify rsa.pem -signature signature data
  openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:secret -kdfopt salt:salt -kdfopt iter:20000 PBKDF2
  openssl kdf -keylen 32 -kdfopt pass:secret -kdfopt salt:salt -kdfopt n:4096 -kdfopt r:8 -kdfopt p:1 SCRYPT
  openssl prime 170141183460469231731687303715884105727
done

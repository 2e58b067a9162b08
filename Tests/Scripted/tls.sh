#!/bin/bash
# `lacuna serve --tls`, with certificates and with keys: libnbd's and QEMU's programs on a port and on a Unix socket. Linux's client is
# in Tests/EndToEnd.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need tls nbdkit nbdinfo nbdcopy python3 qemu-io qemu-img certtool psktool

# shellcheck source=lib-serve.sh
. "$(dirname "$0")/lib-serve.sh"

# authority NAME: makes one in the folder $work/NAME.
authority() {
  mkdir "$work/$1"
  printf '%s\n' "cn = $1" ca cert_signing_key 'expiration_days = 2' >"$work/$1.info"
  {
    certtool --generate-privkey --key-type=ecdsa --curve=secp256r1 --outfile "$work/$1/ca-key.pem"
    certtool --generate-self-signed --load-privkey "$work/$1/ca-key.pem" --template "$work/$1.info" --outfile "$work/$1/ca-cert.pem"
  } 2>>"$work/certtool.log"
}

# issue AUTHORITY FOLDER server|client: a certificate, as nbdkit, libnbd and QEMU look for it.
issue() {
  mkdir "$work/$2"
  cp "$work/$1/ca-cert.pem" "$work/$2"
  printf '%s\n' "cn = $2" "tls_www_$3" signing_key encryption_key 'dns_name = localhost' 'ip_address = 127.0.0.1' \
    'expiration_days = 2' >"$work/$2.info"
  {
    certtool --generate-privkey --key-type=ecdsa --curve=secp256r1 --outfile "$work/$2/$3-key.pem"
    certtool --generate-certificate --load-ca-certificate "$work/$1/ca-cert.pem" --load-ca-privkey "$work/$1/ca-key.pem" \
      --load-privkey "$work/$2/$3-key.pem" --template "$work/$2.info" --outfile "$work/$2/$3-cert.pem"
  } 2>>"$work/certtool.log"
}

# refused NAME COMMAND...: ok if the command fails, and a good client is served afterwards.
refused() {
  local name=$1
  shift
  if timeout 60 "$@" >"$work/refused" 2>&1; then
    not_ok "refused: $name" "$(cat "$work/refused")"
  else
    check "refused: $name" nbdinfo --size "$good"
  fi
}

# use NAME URI QEMU-OPTION...: writes with one client and reads with another.
use() {
  local name=$1 uri=$2
  shift 2
  check_equal "$name: nbdinfo" 16777216 "$(nbdinfo --size "$uri")"
  make_image "$work/image" 16777216 7
  check "$name: nbdcopy writes" nbdcopy "$work/image" "$uri"
  check "$name: qemu-img reads the same" qemu-img convert "$@" -O raw "$work/back"
  check "$name: that is the same" cmp "$work/image" "$work/back"
  check "$name: qemu-io writes" qemu-io "$@" -c 'write -P 7 1M 64k' -c flush
  check "$name: nbdsh reads that" python3 -c "
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.connect_uri(sys.argv[1])
assert h.get_tls_negotiated()
assert h.pread(65536, 1 << 20) == b'\7' * 65536" "$uri"
}

authority ours && authority others
issue ours server server && issue ours friend client && issue others stranger client && issue others false server
# Who trusts our server, and shows another's certificate.
cp -r "$work/stranger" "$work/impostor" && cp "$work/ours/ca-cert.pem" "$work/impostor/"
mkdir "$work/none" && cp "$work/ours/ca-cert.pem" "$work/none/"
for name in known wrong unknown; do
  mkdir "$work/$name"
  user=alice
  [ "$name" != unknown ] || user=bob
  psktool -u "$user" -p "$work/$name/keys.psk" >/dev/null 2>&1
done
check "a store" "$program" create "$work/s.lacuna" --size 16M
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
inet="driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=$port,tls-creds=tls"
unix="driver=nbd,server.type=unix,server.path=$work/s.lacuna.nbd,tls-creds=tls"

# --- Certificates

start_serve --port "$port" --tls "$work/server"
good="nbds://127.0.0.1:$port/?tls-certificates=$work/friend"
check "the address has TLS" grep -q "^Serving $work/s.lacuna at nbds://127.0.0.1:$port$" "$work/log"
use "certificates, a port" "$good" --object "tls-creds-x509,id=tls,endpoint=client,dir=$work/friend" --image-opts "$inet"
refused "no TLS" nbdinfo "nbd://127.0.0.1:$port"
refused "QEMU, no TLS" qemu-img info "nbd://127.0.0.1:$port"
refused "no certificate" nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$work/none"
refused "another's certificate" nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$work/impostor"
refused "by the client, that does not trust the server" nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$work/stranger"
refused "QEMU, another's certificate" qemu-io --object "tls-creds-x509,id=tls,endpoint=client,dir=$work/impostor" \
  --image-opts "$inet" -c 'write 0 512'
refused "a key" nbdinfo "nbds://alice@127.0.0.1:$port/?tls-psk-file=$work/known/keys.psk"
# The next nbdkit has it as well.
pkill -KILL -P "$serve_pid" -x nbdkit
check "after a death, too" nbdinfo --size "$good"
refused "no TLS after a death" nbdinfo "nbd://127.0.0.1:$port"
stop_serve "certificates"

start_serve --tls "$work/server"
good="nbds+unix:///?socket=$work/s.lacuna.nbd&tls-certificates=$work/friend"
use "certificates, a socket" "$good" --object "tls-creds-x509,id=tls,endpoint=client,dir=$work/friend" \
  --image-opts "$unix,tls-hostname=localhost"
refused "no TLS on a socket" nbdinfo "nbd+unix:///?socket=$work/s.lacuna.nbd"
refused "no certificate on a socket" nbdinfo "nbds+unix:///?socket=$work/s.lacuna.nbd&tls-certificates=$work/none"
stop_serve "certificates on a socket"

start_serve --port "$port" --tls "$work/server" --anyone
check "anyone: that is warned of" grep -q '^lacuna: warning: every user of this machine may read and write all volumes (--anyone)$' "$work/log"
good="nbds://127.0.0.1:$port/?tls-certificates=$work/none"
check "anyone: no certificate is needed" nbdinfo --size "$good"
refused "anyone, but no TLS" nbdinfo "nbd://127.0.0.1:$port"
stop_serve "anyone"

# --- Keys

start_serve --port "$port" --tls "$work/known/keys.psk"
good="nbds://alice@127.0.0.1:$port/?tls-psk-file=$work/known/keys.psk"
use "keys, a port" "$good" --object "tls-creds-psk,id=tls,endpoint=client,username=alice,dir=$work/known" --image-opts "$inet"
refused "no TLS, where keys are needed" nbdinfo "nbd://127.0.0.1:$port"
refused "a wrong key" nbdinfo "nbds://alice@127.0.0.1:$port/?tls-psk-file=$work/wrong/keys.psk"
refused "an unknown user" nbdinfo "nbds://bob@127.0.0.1:$port/?tls-psk-file=$work/unknown/keys.psk"
refused "a certificate" nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$work/friend"
refused "QEMU, a wrong key" qemu-img info --object "tls-creds-psk,id=tls,endpoint=client,username=alice,dir=$work/wrong" \
  --image-opts "$inet"
stop_serve "keys"

start_serve --background --tls "$work/known/keys.psk"
wait "$serve_pid"
serve_pid=$(cat "$work/pid")
good="nbds+unix://alice@/?socket=$work/s.lacuna.nbd&tls-psk-file=$work/known/keys.psk"
use "keys, a socket, in the background" "$good" \
  --object "tls-creds-psk,id=tls,endpoint=client,username=alice,dir=$work/known" --image-opts "$unix"
refused "no TLS in the background" nbdinfo "nbd+unix:///?socket=$work/s.lacuna.nbd"
check "it is stopped" "$program" stop "$work/s.lacuna"
wait_until 20 has_ended "$serve_pid" && serve_pid=''

# --- Sockets that are passed in

passing='
import fcntl, os, socket, sys
passed = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(fcntl.fcntl(passed.detach(), fcntl.F_DUPFD, 100), 3)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])'
LACUNA_PLUGIN=$plugin python3 -c "$passing" "$port" "$program" serve "$work/s.lacuna" --tls "$work/server" >"$work/log" 2>&1 &
serve_pid=$!
good="nbds://127.0.0.1:$port/?tls-certificates=$work/friend"
answers() { nbdinfo --size "$good" >/dev/null 2>&1; }
check "a port that was passed in" wait_until 20 answers
refused "no TLS on a port that was passed in" nbdinfo "nbd://127.0.0.1:$port"
refused "no certificate on a port that was passed in" nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$work/none"
stop_serve "a port that was passed in"

# --- What is wrong beforehand

# A certificate that does not go with its key: nbdkit says so, and nothing serves.
cp "$work/false/server-key.pem" "$work/server/server-key.pem"
if LACUNA_PLUGIN=$plugin timeout 20 "$program" serve "$work/s.lacuna" --tls "$work/server" >"$work/log" 2>&1; then
  not_ok "a key of another certificate is refused" "$(cat "$work/log")"
else
  check "a key of another certificate is refused" grep -q 'loading server certificate and key' "$work/log"
fi

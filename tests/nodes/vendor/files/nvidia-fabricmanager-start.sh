#!/bin/bash
# Stand-in of nvidia-fabricmanager-start.sh, test nodes of Rackwright: nvlsm first where it is installed and needed.
mode=start
while [ $# -gt 0 ]; do
  case "$1" in
  --mode) mode=$2; shift 2 ;;
  *) shift ;;
  esac
done
folder=/run/nvidia-fabricmanager
if [ "$mode" = stop ]; then
  for name in nv-fabricmanager nvlsm; do
    [ -e "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null
    rm -f "$folder/$name.pid"
  done
  exit 0
fi
mkdir -p "$folder"
if grep -qE '^gpu\.name *= *NVIDIA (B200|B300)' /etc/simnvml/node.conf && [ -x /opt/nvidia/nvlsm/sbin/nvlsm ]; then
  ln -sf "$(command -v sleep)" "$folder/nvlsm"
  "$folder/nvlsm" infinity </dev/null >/dev/null 2>&1 &
  echo $! >"$folder/nvlsm.pid"
fi
exec /usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg

<?php
// PHP's ldap functions: reads a server and tasks as JSON, writes one answer per task.
$job = json_decode(stream_get_contents(STDIN), true);
ldap_set_option(null, LDAP_OPT_X_TLS_CACERTFILE, $job['caFile']);
$connections = [];

function connect($who) {
    global $connections, $job;
    $key = json_encode($who);
    if (!isset($connections[$key])) {
        $connection = ldap_connect($job['url']);
        ldap_set_option($connection, LDAP_OPT_PROTOCOL_VERSION, 3);
        ldap_set_option($connection, LDAP_OPT_REFERRALS, 0);
        if (!@ldap_start_tls($connection)) throw new Exception('StartTLS: ' . ldap_error($connection));
        if ($who !== 'anonymous' && !@ldap_bind($connection, $who[0], $who[1])) return [$connection, ldap_errno($connection)];
        $connections[$key] = $connection;
    }
    return [$connections[$key], 0];
}

function controls_of($task) {
    $list = [];
    foreach ($task['raw'] as $one) {
        $control = ['oid' => $one['oid'], 'iscritical' => $one['critical']];
        if (isset($one['value'])) $control['value'] = base64_decode($one['value']);
        $list[] = $control;
    }
    return $list;
}

function entries_of($connection, $result) {
    $entries = [];
    for ($entry = ldap_first_entry($connection, $result); $entry; $entry = ldap_next_entry($connection, $entry)) {
        $attributes = [];
        for ($name = ldap_first_attribute($connection, $entry); $name; $name = ldap_next_attribute($connection, $entry)) {
            $values = @ldap_get_values_len($connection, $entry, $name) ?: ['count' => 0];
            unset($values['count']);
            $attributes[$name] = $values;
        }
        $entries[] = ['dn' => ldap_get_dn($connection, $entry), 'attributes' => (object) $attributes];
    }
    return $entries;
}

function finish($connection, $result, $more = []) {
    if ($result === false) return ['code' => ldap_errno($connection), 'text' => ldap_error($connection)] + $more;
    if ($result === true) return ['code' => 0] + $more;
    ldap_parse_result($connection, $result, $code, $matched, $text, $referrals, $controls);
    return ['code' => $code, 'matched' => $matched, 'text' => $text] + $more;
}

function search($connection, $step, $task) {
    $calls = ['base' => 'ldap_read', 'one' => 'ldap_list', 'sub' => 'ldap_search'];
    $call = $calls[$step['scope'] ?? 'sub'];
    $paged = current(array_filter($task['controls'], fn ($one) => $one['kind'] === 'paged'));
    $deref = ($step['deref'] ?? false) ? LDAP_DEREF_ALWAYS : LDAP_DEREF_NEVER;
    $ask = fn ($controls) => @$call(
        $connection, $step['base'], $step['filter'] ?? '(objectClass=*)', $step['attributes'] ?? [], (int) ($step['typesOnly'] ?? false),
        $step['sizeLimit'] ?? 0, 0, $deref, $controls
    );
    if (!$paged) {
        $result = $ask(controls_of($task));
        $entries = $result ? entries_of($connection, $result) : [];
        return finish($connection, $result, ['entries' => $entries]);
    }
    $entries = [];
    $pages = 0;
    $cookie = '';
    do {
        $result = $ask([['oid' => LDAP_CONTROL_PAGEDRESULTS, 'value' => ['size' => $paged['size'], 'cookie' => $cookie]]]);
        ldap_parse_result($connection, $result, $code, $matched, $text, $referrals, $controls);
        $pages++;
        array_push($entries, ...entries_of($connection, $result));
        $cookie = $controls[LDAP_CONTROL_PAGEDRESULTS]['value']['cookie'] ?? '';
    } while ($cookie !== '' && $cookie !== null);
    return ['code' => $code, 'entries' => $entries, 'pages' => $pages];
}

function perform($connection, $task) {
    $step = $task['step'];
    $controls = controls_of($task);
    switch ($step['op']) {
        case 'search':
            return search($connection, $step, $task);
        case 'add':
            return finish($connection, @ldap_add_ext($connection, $step['dn'], $step['attributes'], $controls));
        case 'modify':
            $kinds = ['add' => LDAP_MODIFY_BATCH_ADD, 'delete' => LDAP_MODIFY_BATCH_REMOVE, 'replace' => LDAP_MODIFY_BATCH_REPLACE];
            $changes = array_map(fn ($one) => $one['kind'] !== 'add' && $one['values'] === []
                ? ['attrib' => $one['attribute'], 'modtype' => LDAP_MODIFY_BATCH_REMOVE_ALL]
                : ['attrib' => $one['attribute'], 'modtype' => $kinds[$one['kind']], 'values' => $one['values']], $step['changes']);
            return finish($connection, @ldap_modify_batch($connection, $step['dn'], $changes, $controls));
        case 'rename':
            return finish($connection, @ldap_rename_ext(
                $connection, $step['dn'], $step['newRdn'], $step['newSuperior'] ?? '', !($step['keepOld'] ?? false), $controls
            ));
        case 'delete':
            return finish($connection, @ldap_delete_ext($connection, $step['dn'], $controls));
        case 'compare':
            $found = @ldap_compare($connection, $step['dn'], $step['attribute'], $step['value'], $controls);
            return $found === -1 ? finish($connection, false) : ['code' => $found ? 6 : 5];
        case 'whoami':
            $name = @ldap_exop_whoami($connection);
            return finish($connection, $name !== false, ['value' => $name ?: 'anonymous']);
        case 'password':
            $made = @ldap_exop_passwd($connection, $step['dn'] ?? '', $step['from'] ?? '', $step['to'] ?? '');
            return finish($connection, $made !== false, ['value' => is_string($made) && $made !== '' ? 'made' : '']);
        case 'extended':
            return finish($connection, @ldap_exop($connection, $step['oid'], $step['value'] ?? null, $controls));
    }
}

$answers = [];
foreach ($job['tasks'] as $task) {
    try {
        [$connection, $refused] = connect($task['who']);
        $answers[] = $refused ? ['code' => $refused] : perform($connection, $task);
    } catch (Throwable $error) {
        $answers[] = ['code' => -1, 'text' => get_class($error) . ': ' . $error->getMessage()];
    }
}
echo json_encode(['answers' => $answers], JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR);

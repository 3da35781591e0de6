"""Python's ldap3: reads a server and tasks as JSON, writes one answer per task."""
import base64, json, ssl, sys
import ldap3
from ldap3.core.exceptions import LDAPExceptionError

job = json.load(sys.stdin)
server = ldap3.Server(
    job['host'], port=job['port'], get_info=ldap3.ALL,
    tls=ldap3.Tls(ca_certs_file=job['caFile'], validate=ssl.CERT_REQUIRED),
)
connections = {}


def connect(who):
    key = json.dumps(who)
    if key not in connections:
        name = {} if who == 'anonymous' else {'user': who[0], 'password': who[1], 'authentication': ldap3.SIMPLE}
        connection = ldap3.Connection(server, check_names=False, raise_exceptions=False, **name)
        connection.open()
        connection.start_tls()
        if not connection.bind():
            return connection, connection.result
        connections[key] = connection
    return connections[key], None


def text(values):
    return [value.decode('utf-8') if isinstance(value, bytes) else str(value) for value in values or []]


def answer_of(connection, more=None):
    result = connection.result
    seen = {'code': result['result'], 'matched': result.get('dn') or '', 'text': result.get('message') or ''}
    seen.update(more or {})
    return seen


def entries_of(connection):
    return [
        {'dn': one['dn'], 'attributes': {name: text(values) for name, values in one['raw_attributes'].items()}}
        for one in connection.response or [] if one['type'] == 'searchResEntry'
    ]


def search(connection, step, controls, task):
    scopes = {'base': ldap3.BASE, 'one': ldap3.LEVEL, 'sub': ldap3.SUBTREE}
    arguments = dict(
        search_base=step['base'], search_filter=step.get('filter', '(objectClass=*)'), search_scope=scopes[step.get('scope', 'sub')],
        attributes=step.get('attributes', ['*']), types_only=step.get('typesOnly', False), size_limit=step.get('sizeLimit', 0),
        dereference_aliases=ldap3.DEREF_ALWAYS if step.get('deref') else ldap3.DEREF_NEVER,
    )
    paged = next((one for one in task['controls'] if one['kind'] == 'paged'), None)
    if paged is None:
        connection.search(controls=controls, **arguments)
        return answer_of(connection, {'entries': entries_of(connection)})
    entries, pages, cookie = [], 0, None
    while pages == 0 or cookie:
        connection.search(paged_size=paged['size'], paged_cookie=cookie, paged_criticality=paged.get('critical', False), **arguments)
        pages += 1
        entries += entries_of(connection)
        cookie = (connection.result.get('controls') or {}).get('1.2.840.113556.1.4.319', {}).get('value', {}).get('cookie')
    return answer_of(connection, {'entries': entries, 'pages': pages})


def perform(connection, task):
    step = task['step']
    controls = [
        (one['oid'], one['critical'], None if one.get('value') is None else base64.b64decode(one['value']))
        for one in task['raw'] if one['oid'] != '1.2.840.113556.1.4.319'
    ] or None
    kinds = {'add': ldap3.MODIFY_ADD, 'delete': ldap3.MODIFY_DELETE, 'replace': ldap3.MODIFY_REPLACE, 'increment': ldap3.MODIFY_INCREMENT}
    if step['op'] == 'search':
        return search(connection, step, controls, task)
    if step['op'] == 'add':
        connection.add(step['dn'], attributes=step['attributes'], controls=controls)
    elif step['op'] == 'modify':
        changes = {}
        for change in step['changes']:
            changes.setdefault(change['attribute'], []).append((kinds[change['kind']], change['values']))
        connection.modify(step['dn'], changes, controls=controls)
    elif step['op'] == 'rename':
        connection.modify_dn(
            step['dn'], step['newRdn'], delete_old_dn=not step.get('keepOld', False), new_superior=step.get('newSuperior'), controls=controls
        )
    elif step['op'] == 'delete':
        connection.delete(step['dn'], controls=controls)
    elif step['op'] == 'compare':
        connection.compare(step['dn'], step['attribute'], step['value'], controls=controls)
    elif step['op'] == 'whoami':
        return answer_of(connection, {'value': connection.extend.standard.who_am_i() or 'anonymous'})
    elif step['op'] == 'password':
        made = connection.extend.standard.modify_password(step.get('dn'), step.get('from'), step.get('to'))
        return answer_of(connection, {'value': 'made' if isinstance(made, str) and made else ''})
    elif step['op'] == 'extended':
        connection.extended(step['oid'], step.get('value'), controls=controls)
    return answer_of(connection)


def names_of_schema():
    """What get_info=ALL learnt, and whether names are checked by it."""
    connection, _ = connect(job['admin'])
    checked = ldap3.Connection(server, user=job['admin'][0], password=job['admin'][1], check_names=True, auto_bind=ldap3.AUTO_BIND_TLS_BEFORE_BIND)
    refused = []
    for attempt in [
        lambda: checked.search('o=mail', '(noSuchAttribute=x)', attributes=['cn']),
        lambda: checked.search('o=mail', '(cn=x)', attributes=['noSuchAttribute']),
        lambda: checked.add('cn=x,o=mail', ['noSuchClass'], {}),
    ]:
        try:
            attempt()
        except LDAPExceptionError as error:
            refused.append(type(error).__name__)
    found = checked.search('o=mail', '(objectClass=mailCluster)', attributes=['cn', 'clusterMember', 'clusterWeight'])
    return {
        'namingContexts': server.info.naming_contexts,
        'versions': server.info.supported_ldap_versions,
        'refused': refused,
        'found': found,
        'attributes': sorted(name.lower() for name in server.schema.attribute_types),
        'classes': sorted(name.lower() for name in server.schema.object_classes),
    }


answers = []
for task in job['tasks']:
    try:
        connection, refused = connect(task['who'])
        answers.append({'code': refused['result'], 'matched': '', 'text': refused['message']} if refused else perform(connection, task))
    except (LDAPExceptionError, ValueError) as error:
        answers.append({'code': -1, 'text': f'{type(error).__name__}: {error}'})
json.dump({'answers': answers, 'schema': names_of_schema() if job.get('schema') else None}, sys.stdout)
